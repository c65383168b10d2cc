// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/verification.h"

#include <map>
#include <utility>

namespace nibble::cuda {

namespace {
std::vector<Verification>& All() {
  static auto* all = new std::vector<Verification>;
  return *all;
}
}  // namespace

const std::vector<Verification>& Verifications() { return All(); }

const VerificationCases& CasesOf(const Verification& verification) {
  static auto* made = new std::map<std::string, VerificationCases>;
  const auto found = made->find(verification.name);
  if (found != made->end()) return found->second;
  return made->emplace(verification.name, verification.cases()).first->second;
}

VerificationRegistration::VerificationRegistration(Verification verification) {
  All().push_back(std::move(verification));
}

}  // namespace nibble::cuda
