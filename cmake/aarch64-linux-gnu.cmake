# SPDX-License-Identifier: Apache-2.0
#
# CMake toolchain file: builds for 64-bit ARM Linux on another machine, with Debian's and
# Ubuntu's cross compiler (package g++-aarch64-linux-gnu), and runs the tests there under QEMU's
# user-mode emulation (package qemu-user; it needs neither root nor binfmt_misc). The preset
# "aarch64" uses it.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Where the cross compiler's packages keep ARM's C library. Programs of the build come from this
# machine, headers, libraries and CMake packages from there alone.
set(nibble_sysroot /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH ${nibble_sysroot})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# "max" is every extension that QEMU knows: the dot product, I8MM and BF16 among them.
find_program(NIBBLE_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(NIBBLE_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR
    ${NIBBLE_QEMU_AARCH64} -cpu max -L ${nibble_sysroot})
endif()
