# SPDX-License-Identifier: Apache-2.0
#
# GoogleTest from the first of
#   1. an installed package (Debian: libgtest-dev),
#   2. Debian's copy of the source (package googletest), which another CPU's build needs,
#   3. the release on GitHub.

set(nibble_googletest_source /usr/src/googletest)

find_package(GTest CONFIG QUIET)
if(NOT GTest_FOUND)
  set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
  set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
endif()
if(NOT GTest_FOUND AND EXISTS ${nibble_googletest_source}/googletest/CMakeLists.txt)
  add_subdirectory(${nibble_googletest_source} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
elseif(NOT GTest_FOUND)
  include(FetchContent)
  FetchContent_Declare(googletest
    URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    URL_HASH SHA256=8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7)
  FetchContent_MakeAvailable(googletest)
endif()
include(GoogleTest)

# nibble_add_tests(NAME FILE...) makes one test binary of the files, linked with the library's
# objects, so that tests reach what libnibble.so hides, and registers each test with CTest.
function(nibble_add_tests name)
  if(NOT ARGN)
    return()
  endif()
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE nibble_objects GTest::gtest GTest::gtest_main)
  set(properties TIMEOUT 600)
  if(CMAKE_CROSSCOMPILING_EMULATOR)
    # For tests that start themselves once more.
    string(REPLACE ";" " " emulator "${CMAKE_CROSSCOMPILING_EMULATOR}")
    list(APPEND properties ENVIRONMENT "NIBBLE_TEST_EMULATOR=${emulator}")
  endif()
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES ${properties})
endfunction()
