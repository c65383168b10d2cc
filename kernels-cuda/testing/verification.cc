// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/verification.h"

#include <utility>

namespace nibble::cuda {

namespace {
std::vector<Verification>& All() {
  static auto* all = new std::vector<Verification>;
  return *all;
}
}  // namespace

const std::vector<Verification>& Verifications() { return All(); }

VerificationRegistration::VerificationRegistration(Verification verification) {
  All().push_back(std::move(verification));
}

}  // namespace nibble::cuda
