# SPDX-License-Identifier: Apache-2.0
#
# Emulated tests on ARM CPUs that lack what QEMU's "max" has, so that no kernel runs an
# instruction unasked: Cortex-A53 has neither the dot product nor I8MM, Neoverse N1 the former
# alone. A whole forward step on the target and the byte products that the library chooses there.

foreach(cpu cortex-a53 neoverse-n1)
  foreach(pair "kernels_cpu_tests ByteDot.*:NibbleDot.*" "native_tests AbiForward.*")
    string(REPLACE " " ";" pair ${pair})
    list(GET pair 0 program)
    list(GET pair 1 tests)
    add_test(NAME ${program}.on.${cpu}
      COMMAND ${NIBBLE_QEMU_AARCH64} -cpu ${cpu} -L ${CMAKE_FIND_ROOT_PATH}
              $<TARGET_FILE:${program}> --gtest_filter=${tests})
    set_tests_properties(${program}.on.${cpu} PROPERTIES
      TIMEOUT 600 FAIL_REGULAR_EXPRESSION "Running 0 tests")
  endforeach()
endforeach()
