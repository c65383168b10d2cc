// SPDX-License-Identifier: Apache-2.0
#include "kernels-cuda/testing/equivalent_mutants.h"

namespace nibble::cuda {

namespace {
KnownMutants& All() {
  static auto* all = new KnownMutants;
  return *all;
}
}  // namespace

const KnownMutants& AllKnownMutants() { return All(); }

KnownMutantsRegistration::KnownMutantsRegistration(const KnownMutants& known) {
  KnownMutants& all = All();
  all.equivalent.insert(all.equivalent.end(), known.equivalent.begin(), known.equivalent.end());
  all.bounds.insert(all.bounds.end(), known.bounds.begin(), known.bounds.end());
}

}  // namespace nibble::cuda
