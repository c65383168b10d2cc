# SPDX-License-Identifier: Apache-2.0
#
# cmake -D PTXAS=program -D ARCH=sm_80 -D IMAGE=path -P CudaAssemble.cmake: assembles path.ptx to
# path.cubin and keeps what ptxas says of each kernel, its registers and so on, as path.txt.
execute_process(
  COMMAND ${PTXAS} -v -arch=${ARCH} -o ${IMAGE}.cubin ${IMAGE}.ptx
  OUTPUT_VARIABLE says ERROR_VARIABLE says RESULT_VARIABLE failed)
if(failed)
  file(REMOVE ${IMAGE}.cubin)
  message(FATAL_ERROR "${PTXAS} failed for ${IMAGE}.ptx:\n${says}")
endif()
file(WRITE ${IMAGE}.txt "${says}")
if(says MATCHES "[^\n]*[Ww]arning[^\n]*")
  message("${IMAGE}.ptx: ${CMAKE_MATCH_0}")
endif()
