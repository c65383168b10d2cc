# SPDX-License-Identifier: Apache-2.0
#
# The libraries as the Java jar carries them: jar-resources/META-INF/native/<os>-<arch>/libnibble.so
# and, in a build with CUDA, libnibble_cuda.so, without debug information, and the SHA-256 of each
# beside it. java-bindings/pom.xml packs the folder.

string(TOLOWER ${CMAKE_SYSTEM_NAME} nibble_os)
set(nibble_arch ${CMAKE_SYSTEM_PROCESSOR})
if(nibble_arch STREQUAL "amd64")
  set(nibble_arch x86_64)
elseif(nibble_arch STREQUAL "arm64")
  set(nibble_arch aarch64)
endif()
set(nibble_jar_dir ${PROJECT_BINARY_DIR}/jar-resources/META-INF/native/${nibble_os}-${nibble_arch}
  CACHE INTERNAL "where the libraries of the jar lie")

# nibble_jar_library(TARGET FILE): FILE in the jar is the library TARGET. The target
# nibble_jar_resources is all of them.
function(nibble_jar_library target file)
  add_custom_command(
    OUTPUT ${nibble_jar_dir}/${file} ${nibble_jar_dir}/${file}.sha256
    COMMAND ${CMAKE_COMMAND} -E make_directory ${nibble_jar_dir}
    COMMAND ${CMAKE_STRIP} --strip-unneeded -o ${nibble_jar_dir}/${file} $<TARGET_FILE:${target}>
    COMMAND ${CMAKE_COMMAND} -D FILE=${nibble_jar_dir}/${file}
            -P ${PROJECT_SOURCE_DIR}/cmake/WriteSha256.cmake
    DEPENDS ${target} ${PROJECT_SOURCE_DIR}/cmake/WriteSha256.cmake
    COMMENT "Packing ${file} for the jar" VERBATIM)
  add_custom_target(${target}_in_jar ALL DEPENDS ${nibble_jar_dir}/${file})
  add_dependencies(nibble_jar_resources ${target}_in_jar)
endfunction()

add_custom_target(nibble_jar_resources ALL)

nibble_jar_library(nibble libnibble.so)
