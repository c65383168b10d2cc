# SPDX-License-Identifier: Apache-2.0
#
# cmake --install: header, library, CMake package (find_package(Nibble), target Nibble::nibble)
# and pkg-config file. Both find the prefix from where they lie, so that it may be moved.
include(CMakePackageConfigHelpers)

set(nibble_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Nibble)

install(TARGETS nibble EXPORT NibbleTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_SOURCE_DIR}/native/include/nibble/nibble.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nibble)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/NOTICE
  DESTINATION ${CMAKE_INSTALL_DOCDIR})

install(EXPORT NibbleTargets NAMESPACE Nibble:: DESTINATION ${nibble_cmake_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/NibbleConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/NibbleConfig.cmake INSTALL_DESTINATION ${nibble_cmake_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/NibbleConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/NibbleConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/NibbleConfigVersion.cmake DESTINATION ${nibble_cmake_dir})

# pkg-config knows the directory of the .pc file; the prefix is so many levels above it.
file(RELATIVE_PATH nibble_pc_to_prefix
  "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
configure_file(${PROJECT_SOURCE_DIR}/cmake/nibble.pc.in ${CMAKE_CURRENT_BINARY_DIR}/nibble.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/nibble.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
