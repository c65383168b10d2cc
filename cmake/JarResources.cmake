# SPDX-License-Identifier: Apache-2.0
#
# The library as the Java jar carries it: jar-resources/META-INF/native/<os>-<arch>/libnibble.so
# without debug information, and its SHA-256 beside it. java-bindings/pom.xml packs the folder.

string(TOLOWER ${CMAKE_SYSTEM_NAME} nibble_os)
set(nibble_arch ${CMAKE_SYSTEM_PROCESSOR})
if(nibble_arch STREQUAL "amd64")
  set(nibble_arch x86_64)
elseif(nibble_arch STREQUAL "arm64")
  set(nibble_arch aarch64)
endif()
set(nibble_jar_dir ${PROJECT_BINARY_DIR}/jar-resources/META-INF/native/${nibble_os}-${nibble_arch})

add_custom_command(
  OUTPUT ${nibble_jar_dir}/libnibble.so ${nibble_jar_dir}/libnibble.so.sha256
  COMMAND ${CMAKE_COMMAND} -E make_directory ${nibble_jar_dir}
  COMMAND ${CMAKE_STRIP} --strip-unneeded -o ${nibble_jar_dir}/libnibble.so $<TARGET_FILE:nibble>
  COMMAND ${CMAKE_COMMAND} -D FILE=${nibble_jar_dir}/libnibble.so
          -P ${PROJECT_SOURCE_DIR}/cmake/WriteSha256.cmake
  DEPENDS nibble ${PROJECT_SOURCE_DIR}/cmake/WriteSha256.cmake
  COMMENT "Packing libnibble.so for the jar" VERBATIM)
add_custom_target(nibble_jar_resources ALL DEPENDS ${nibble_jar_dir}/libnibble.so)
