# SPDX-License-Identifier: Apache-2.0
#
# Google Highway (portable SIMD) as the target nibble_highway, from the first of
#   1. an installed package of version 1.2 or newer (unless NIBBLE_SYSTEM_HIGHWAY is off),
#   2. the source directory NIBBLE_HIGHWAY_SOURCE,
#   3. Debian's source package, which scripts/fetch-highway.sh keeps in the user's cache,
#   4. the release on GitHub.
# From source, only the four files that dispatch needs are built: static, hidden, with Nibble's
# own flags, so that libnibble.so depends on nothing that a machine may lack.

set(nibble_highway_version 1.2.0)
# Of upstream's release archive, which Debian's source package carries unchanged.
set(nibble_highway_sha256 7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)

add_library(nibble_highway INTERFACE)

if(NIBBLE_SYSTEM_HIGHWAY AND NOT NIBBLE_HIGHWAY_SOURCE)
  find_package(hwy 1.2 CONFIG QUIET)
endif()

if(hwy_FOUND)
  message(STATUS "Highway: installed, version ${hwy_VERSION}")
  target_link_libraries(nibble_highway INTERFACE hwy::hwy)
  return()
endif()

set(nibble_highway_dir "${NIBBLE_HIGHWAY_SOURCE}")

if(NOT nibble_highway_dir)
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(nibble_cache "$ENV{XDG_CACHE_HOME}/nibble")
  elseif(DEFINED ENV{HOME})
    set(nibble_cache "$ENV{HOME}/.cache/nibble")
  else()
    set(nibble_cache "${PROJECT_BINARY_DIR}/downloads")
  endif()
  message(STATUS "Highway: getting the source")
  execute_process(
    COMMAND ${PROJECT_SOURCE_DIR}/scripts/fetch-highway.sh
            ${nibble_cache} ${nibble_highway_version} ${nibble_highway_sha256}
    OUTPUT_VARIABLE nibble_fetched ERROR_VARIABLE nibble_fetch_log
    OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE nibble_fetch_result)
  if(nibble_fetch_result EQUAL 0)
    set(nibble_highway_dir "${nibble_fetched}")
  else()
    message(STATUS "Highway: not from Debian, trying GitHub; the reason:\n${nibble_fetch_log}")
    include(FetchContent)
    # SOURCE_SUBDIR names a folder without a CMakeLists.txt: only the files are wanted, not
    # upstream's targets and tests.
    FetchContent_Declare(highway
      URL https://github.com/google/highway/archive/refs/tags/${nibble_highway_version}.tar.gz
      URL_HASH SHA256=${nibble_highway_sha256}
      SOURCE_SUBDIR hwy)
    FetchContent_MakeAvailable(highway)
    set(nibble_highway_dir "${highway_SOURCE_DIR}")
  endif()
endif()

if(NOT EXISTS "${nibble_highway_dir}/hwy/highway.h")
  message(FATAL_ERROR "No hwy/highway.h in '${nibble_highway_dir}'. Set NIBBLE_HIGHWAY_SOURCE to "
    "the unpacked source of Google Highway ${nibble_highway_version} or newer.")
endif()
message(STATUS "Highway: source in ${nibble_highway_dir}")

add_library(nibble_hwy STATIC)
foreach(file aligned_allocator per_target print targets abort)
  if(EXISTS "${nibble_highway_dir}/hwy/${file}.cc")
    target_sources(nibble_hwy PRIVATE "${nibble_highway_dir}/hwy/${file}.cc")
  endif()
endforeach()
target_include_directories(nibble_hwy SYSTEM PUBLIC "${nibble_highway_dir}")
target_compile_definitions(nibble_hwy PUBLIC HWY_STATIC_DEFINE)
target_link_libraries(nibble_hwy PRIVATE nibble_settings)
# Upstream's warnings are upstream's.
target_compile_options(nibble_hwy PRIVATE -w)
target_link_libraries(nibble_highway INTERFACE nibble_hwy)
