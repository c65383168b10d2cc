/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests: a driver library that can do nothing but tell its version (FAKE_DRIVER_VERSION) and
 * fail to start (FAKE_DRIVER_INIT). Linked as one library for each way to fail. */

#ifdef FAKE_DRIVER_VERSION
__attribute__((visibility("default"))) int cuDriverGetVersion(int *version) {
  *version = FAKE_DRIVER_VERSION;
  return 0;
}
#endif

#ifdef FAKE_DRIVER_INIT
__attribute__((visibility("default"))) int cuInit(unsigned flags) {
  (void)flags;
  return FAKE_DRIVER_INIT;
}
__attribute__((visibility("default"))) int cuGetErrorName(int error, const char **text) {
  *text = error == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
  return 0;
}
__attribute__((visibility("default"))) int cuGetErrorString(int error, const char **text) {
  *text = error == 100 ? "no device" : "kernel and user mode versions differ";
  return 0;
}
#endif

/* A library needs a symbol. */
int nibble_fake_driver;
