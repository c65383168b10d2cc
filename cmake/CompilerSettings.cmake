# SPDX-License-Identifier: Apache-2.0
#
# What all of Nibble's C++ is compiled with, as the interface target nibble_settings.

add_library(nibble_settings INTERFACE)
target_include_directories(nibble_settings INTERFACE
  ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/native/include)

# A reference must compute what it says: the compiler may not fuse a*b+c on its own. Kernels ask
# for a fused multiply-add where they want one.
target_compile_options(nibble_settings INTERFACE -ffp-contract=off)

# SSSE3 and SSE4 machines without AVX2 are served by SSE2; AVX3_SPR needs a newer compiler than
# Debian 12's; HWY_NEON is NEON_WITHOUT_AES and AES, which nothing here uses; SVE's vectors cannot
# stand in arrays, as the kernels' register tiles do, and NEON runs on every machine that has it.
# The same value must reach every file, Highway's own included. AVX3_DL (AVX-512 with VNNI and
# VBMI) is built only where it is asked for.
set(nibble_disabled_targets "HWY_SSSE3|HWY_SSE4|HWY_AVX3_SPR|HWY_NEON|HWY_ALL_SVE")
if(NIBBLE_DISABLED_SIMD_TARGETS)
  string(APPEND nibble_disabled_targets "|${NIBBLE_DISABLED_SIMD_TARGETS}")
endif()
target_compile_definitions(nibble_settings INTERFACE
  "HWY_DISABLED_TARGETS=(${nibble_disabled_targets})" HWY_WANT_AVX3_DL
  "NIBBLE_VERSION=\"${PROJECT_VERSION}\"")

target_compile_options(nibble_settings INTERFACE -Wall -Wextra)
if(NIBBLE_WARNINGS_AS_ERRORS)
  target_compile_options(nibble_settings INTERFACE -Werror)
endif()

if(NIBBLE_SANITIZE)
  # float-cast-overflow is outside "undefined" but as much of a bug in a quantizer. Recovery is
  # off, so that a finding fails its test. "null" and "object-size" find what AddressSanitizer
  # finds as well, and together with -O2 and inlined checks they make a kernel file compile for
  # minutes: hence -O1 and checks by call.
  set(nibble_sanitizers
    -fsanitize=address,undefined,float-cast-overflow -fno-sanitize=null,object-size
    -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND nibble_sanitizers "SHELL:--param asan-instrumentation-with-call-threshold=0")
  endif()
  target_compile_options(nibble_settings INTERFACE ${nibble_sanitizers})
  # GCC says itself that this warning is unreliable with sanitizers; <regex> alone sets it off.
  target_compile_options(nibble_settings INTERFACE -Wno-maybe-uninitialized)
  target_link_options(nibble_settings INTERFACE ${nibble_sanitizers})
endif()

find_package(Threads REQUIRED)
target_link_libraries(nibble_settings INTERFACE Threads::Threads)
