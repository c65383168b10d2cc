# SPDX-License-Identifier: Apache-2.0
#
# cmake -D FILE=path -P WriteSha256.cmake: writes path.sha256, in the format of sha256sum.
file(SHA256 "${FILE}" sum)
get_filename_component(name "${FILE}" NAME)
file(WRITE "${FILE}.sha256" "${sum}  ${name}\n")
