# SPDX-License-Identifier: Apache-2.0
#
# Google Benchmark from the system (Debian: libbenchmark-dev), else from GitHub.

find_package(benchmark CONFIG QUIET)
if(NOT benchmark_FOUND)
  include(FetchContent)
  set(BENCHMARK_ENABLE_TESTING OFF CACHE BOOL "" FORCE)
  set(BENCHMARK_ENABLE_INSTALL OFF CACHE BOOL "" FORCE)
  FetchContent_Declare(benchmark
    URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    URL_HASH SHA256=6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce)
  FetchContent_MakeAvailable(benchmark)
endif()

# nibble_add_benchmarks(NAME FILE...) makes one benchmark binary of the files.
function(nibble_add_benchmarks name)
  if(NOT ARGN)
    return()
  endif()
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE
    nibble_objects benchmark::benchmark benchmark::benchmark_main)
endfunction()
