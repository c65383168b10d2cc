// SPDX-License-Identifier: Apache-2.0
//
// Small breakages of PTX text, one a mutant: what a slip of the pen in a kernel would look like.
#pragma once

#include <set>
#include <string>
#include <vector>

namespace nibble::cuda {

struct Mutant {
  int line;              // from 1
  std::string kernel;    // the function it is in
  std::string change;    // "drop", "mask", "predicate", "compare", "offset", "shift", ...
  std::string original;  // the line
  std::string mutated;   // "": the line is left out
};

// All mutants of the lines given. What moves data, orders it or chooses its bits:
//   drop       a barrier, a wait or commit of cp.async or wgmma, a wgmma.fence, a
//              fence.proxy.async, a cp.async, a wgmma.mma_async or a store is left out
//   wait       cp.async.wait_group or wgmma.wait_group lets one group more be under way
//   matrix     ldmatrix loads half as many matrices, or transposes them where it did not
//   fragment   the first two registers of an mma's or wgmma's left operand are swapped
//   offset     an address moves by the size of the access
//   permute    a selector of prmt or the table of lop3 changes in one bit
//   mask       an and with a constant loses its lowest bit, unless whatever uses the result shifts
//              that bit out: then the mutant is the same program
// and what computes indices, bounds and addresses, or chooses a path:
//   shift      a shift count is one less
//   constant   an added or multiplied constant is one more
//   predicate  @p becomes @!p
//   compare    < becomes <=, == becomes != and so on
//   select     the operands of selp are swapped
std::vector<Mutant> Mutants(const std::string& ptx, const std::set<int>& lines);

// Whether a change is of the first sort: each such mutant must be seen, or be listed by itself.
bool IsStrict(const Mutant& mutant);

// A line without what changes from build to build: register numbers and spaces.
std::string Normalized(const std::string& line);

}  // namespace nibble::cuda
