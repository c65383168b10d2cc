// SPDX-License-Identifier: Apache-2.0
#include "native/src/packed_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include "kernels-cpu/gemm/canonical_storage.h"
#include "kernels-cpu/memory/hash.h"
#include "native/src/checks.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian");

namespace nibble::abi {
namespace {

constexpr char kMagic[8] = {'N', 'I', 'B', 'B', 'L', 'E', 'P', 'M'};
constexpr uint32_t kVersion = 1;
constexpr int64_t kAlignment = 4096;
// A block stays in a second-level cache between its read and its hash.
constexpr int64_t kBlockBytes = int64_t{256} << 10;

struct Header {
  char magic[8];
  uint32_t version;
  int32_t code, scale, reserved;
  uint64_t layout;
  int64_t group_size, rows, cols;
  int64_t panel_bytes, block_bytes, factor_bytes, data_bytes;
};
static_assert(sizeof(Header) == 88, "no padding: the header is compared and hashed as bytes");

// The hash of a matrix of this format with bytes of every value in it. 19 x 600: a last panel
// that is short, several segments, a last group that is short.
uint64_t LayoutHash(const WeightFormat& format) {
  constexpr int64_t kRows = 19, kCols = 600;
  CanonicalStorage canonical(format, kRows, kCols);
  uint32_t state = 1;
  for (auto* part : {&canonical.codes, &canonical.codes_high, &canonical.scales}) {
    for (uint8_t& byte : *part) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<uint8_t>(state >> 24);
    }
  }
  std::fill(canonical.factors.begin(), canonical.factors.end(), 3.0f);
  ThreadPool alone(1);
  const PackedMatrix m = PackMatrix(alone, format, kRows, kCols, canonical.view());
  const uint64_t parts[] = {HashBytes(m.data.data(), m.data.size()),
                            HashBytes(m.factors.data(), m.factors.size())};
  return HashBytes(parts, sizeof(parts));
}

// Where the parts of a record lie; all sizes fit, since the matrix's do (CheckFormat).
struct Plan {
  Plan(const WeightFormat& format, int64_t rows, int64_t cols)
      : panel_bytes(PanelBytes(format, cols)) {
    const int64_t panels = DivUp(rows, kPanelRows);
    // Whole units of two panels (gemm.cc).
    block_bytes = std::max<int64_t>(2, kBlockBytes / panel_bytes / 2 * 2) * panel_bytes;
    data_bytes = panels * panel_bytes;
    blocks = DivUp(data_bytes, block_bytes);
    factor_bytes = panels * kPanelRows * static_cast<int64_t>(sizeof(float));
    table_bytes = static_cast<int64_t>(sizeof(Header)) + (blocks + 2) * 8;
    factors = RoundUp(table_bytes, kAlignment);
    data = factors + RoundUp(factor_bytes, kAlignment);
    bytes = data + RoundUp(data_bytes, kAlignment);
  }
  int64_t BlockSize(int64_t b) const { return std::min(block_bytes, data_bytes - b * block_bytes); }

  int64_t panel_bytes, block_bytes, data_bytes, blocks, factor_bytes;
  int64_t table_bytes;    // header, hashes and their hash
  int64_t factors, data;  // offsets in the record
  int64_t bytes;
};

Header MakeHeader(const WeightFormat& format, int64_t rows, int64_t cols, const Plan& plan) {
  Header h = {};
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  h.version = kVersion;
  h.code = static_cast<int32_t>(format.code);
  h.scale = static_cast<int32_t>(format.scale);
  h.layout = LayoutHash(format);
  h.group_size = format.group_size;
  h.rows = rows;
  h.cols = cols;
  h.panel_bytes = plan.panel_bytes;
  h.block_bytes = plan.block_bytes;
  h.factor_bytes = plan.factor_bytes;
  h.data_bytes = plan.data_bytes;
  return h;
}

class File {
 public:
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  // A regular file; O_NONBLOCK, so that a FIFO without a writer does not hang.
  nb_status Open(const Arg& arg, const char* path, int flags) {
    NIBBLE_RETURN_IF_FAILED(CheckNotNull(arg, path));
    path_ = path;
    fd_ = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd_ < 0) return FailErrno(arg, "cannot be opened", errno, NB_INVALID_ARGUMENT);
    struct stat status;
    if (fstat(fd_, &status) != 0) return FailErrno(arg, "cannot be read", errno, NB_DEVICE_ERROR);
    if (!S_ISREG(status.st_mode)) return Fail(arg, "is not a regular file");
    size_ = status.st_size;
    return NB_OK;
  }
  nb_status Fail(const Arg& arg, const char* problem) const {
    return FailArg(NB_INVALID_ARGUMENT, arg, "\"%.512s\" %s", path_, problem);
  }
  nb_status FailErrno(const Arg& arg, const char* what, int error, nb_status status) const {
    return FailArg(status, arg, "\"%.512s\" %s: %s", path_, what,
                   std::generic_category().message(error).c_str());
  }
  // 0, an errno value, or kEnded where the file is too short.
  static constexpr int kEnded = -1;
  int Read(void* to, int64_t bytes, int64_t offset) const {
    auto* p = static_cast<uint8_t*>(to);
    while (bytes > 0) {
      const ssize_t n = pread(fd_, p, static_cast<size_t>(std::min(bytes, kMost)), offset);
      if (n == 0) return kEnded;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      p += n, offset += n, bytes -= n;
    }
    return 0;
  }
  int Write(const void* from, int64_t bytes, int64_t offset) const {
    auto* p = static_cast<const uint8_t*>(from);
    while (bytes > 0) {
      const ssize_t n = pwrite(fd_, p, static_cast<size_t>(std::min(bytes, kMost)), offset);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : ENOSPC;
      p += n, offset += n, bytes -= n;
    }
    return 0;
  }
  int64_t size() const { return size_; }
  int fd() const { return fd_; }

 private:
  static constexpr int64_t kMost = int64_t{1} << 30;
  const char* path_ = "";
  int fd_ = -1;
  int64_t size_ = 0;
};

// Calls body(block) for each block, on the thread whose panels it holds (up to the rounding of
// a share to whole blocks); body returns 0 or what stops its thread. Returns the first of these.
template <class Body>
int ForEachBlock(ThreadPool& pool, const Plan& plan, const Body& body) {
  std::vector<int> stopped(pool.threads(), 0);
  pool.Run([&](int thread) {
    const Range range = Share(plan.blocks, thread, pool.threads());
    for (int64_t b = range.begin; b < range.end && stopped[thread] == 0; ++b) {
      stopped[thread] = body(b);
    }
  });
  for (const int s : stopped) {
    if (s != 0) return s;
  }
  return 0;
}

constexpr int kDamaged = -2;

nb_status ReadProblem(const File& file, const Arg& arg, int problem) {
  if (problem == File::kEnded) return file.Fail(arg, "ends before the record does");
  if (problem == kDamaged) return file.Fail(arg, "holds a damaged record: a checksum differs");
  return file.FailErrno(arg, "cannot be read", problem, NB_DEVICE_ERROR);
}

// What makes a record another one than the one expected; null if nothing does.
const char* Difference(const Header& found, const Header& expected) {
  if (std::memcmp(found.magic, kMagic, sizeof(kMagic)) != 0) {
    return "holds no record of a matrix there";
  }
  if (found.version != expected.version) return "holds a record of another version";
  if (found.code != expected.code || found.scale != expected.scale ||
      found.group_size != expected.group_size) {
    return "holds a matrix of another format";
  }
  if (found.rows != expected.rows || found.cols != expected.cols) {
    return "holds a matrix of another shape";
  }
  if (std::memcmp(&found, &expected, sizeof(Header)) != 0) {
    return "holds a matrix that is packed for another version or another machine";
  }
  return nullptr;
}

}  // namespace

int64_t RecordBytes(const WeightFormat& format, int64_t rows, int64_t cols) {
  return Plan(format, rows, cols).bytes;
}

nb_status WriteRecord(const char* function, ThreadPool& pool, const PackedMatrix& m,
                      const char* path, int64_t offset) {
  const Arg arg{function, "path"};
  File file;
  NIBBLE_RETURN_IF_FAILED(file.Open(arg, path, O_WRONLY));
  const Plan plan(m.format, m.rows, m.cols);
  std::vector<uint8_t> table(static_cast<size_t>(plan.factors), 0);
  const Header header = MakeHeader(m.format, m.rows, m.cols, plan);
  std::memcpy(table.data(), &header, sizeof(header));
  auto* hashes = reinterpret_cast<uint64_t*>(table.data() + sizeof(Header));
  hashes[0] = HashBytes(m.factors.data(), static_cast<size_t>(plan.factor_bytes));
  int problem = ForEachBlock(pool, plan, [&](int64_t b) {
    const uint8_t* block = m.data.data() + b * plan.block_bytes;
    hashes[1 + b] = HashBytes(block, static_cast<size_t>(plan.BlockSize(b)));
    return file.Write(block, plan.BlockSize(b), offset + plan.data + b * plan.block_bytes);
  });
  // Zeros between the parts, so that every byte of the record is written.
  const std::vector<uint8_t> zeros(kAlignment, 0);
  const auto write = [&](const void* from, int64_t bytes, int64_t at) {
    if (problem == 0) problem = file.Write(from, bytes, offset + at);
  };
  write(zeros.data(), plan.bytes - plan.data - plan.data_bytes, plan.data + plan.data_bytes);
  write(m.factors.data(), plan.factor_bytes, plan.factors);
  write(zeros.data(), plan.data - plan.factors - plan.factor_bytes,
        plan.factors + plan.factor_bytes);
  hashes[1 + plan.blocks] = HashBytes(table.data(), static_cast<size_t>(plan.table_bytes - 8));
  write(table.data(), plan.factors, 0);
  return problem == 0 ? NB_OK : file.FailErrno(arg, "cannot be written", problem, NB_DEVICE_ERROR);
}

nb_status ReadRecord(const char* function, ThreadPool& pool, const WeightFormat& format,
                     int64_t rows, int64_t cols, const char* path, int64_t offset,
                     PackedMatrix* matrix) {
  const Arg arg{function, "path"};
  File file;
  NIBBLE_RETURN_IF_FAILED(file.Open(arg, path, O_RDONLY));
  const Plan plan(format, rows, cols);
  // Before anything is allocated for it.
  if (offset > file.size() || plan.bytes > file.size() - offset) {
    return ReadProblem(file, arg, File::kEnded);
  }
  posix_fadvise(file.fd(), offset, plan.bytes, POSIX_FADV_SEQUENTIAL);  // a hint: may be refused
  std::vector<uint8_t> table(static_cast<size_t>(plan.table_bytes));
  int problem = file.Read(table.data(), plan.table_bytes, offset);
  if (problem != 0) return ReadProblem(file, arg, problem);
  Header found;
  std::memcpy(&found, table.data(), sizeof(found));
  const auto* hashes = reinterpret_cast<const uint64_t*>(table.data() + sizeof(Header));
  const char* difference = Difference(found, MakeHeader(format, rows, cols, plan));
  if (difference != nullptr) return file.Fail(arg, difference);
  if (hashes[1 + plan.blocks] !=
      HashBytes(table.data(), static_cast<size_t>(plan.table_bytes - 8))) {
    return ReadProblem(file, arg, kDamaged);
  }
  PackedMatrix m = AllocateMatrix(format, rows, cols);
  problem = ForEachBlock(pool, plan, [&](int64_t b) {
    uint8_t* block = m.data.data() + b * plan.block_bytes;
    const int read = file.Read(block, plan.BlockSize(b), offset + plan.data + b * plan.block_bytes);
    if (read != 0) return read;
    return hashes[1 + b] == HashBytes(block, static_cast<size_t>(plan.BlockSize(b))) ? 0 : kDamaged;
  });
  if (problem == 0) {
    problem = file.Read(m.factors.data(), plan.factor_bytes, offset + plan.factors);
  }
  if (problem == 0 &&
      hashes[0] != HashBytes(m.factors.data(), static_cast<size_t>(plan.factor_bytes))) {
    problem = kDamaged;
  }
  if (problem != 0) return ReadProblem(file, arg, problem);
  *matrix = std::move(m);
  return NB_OK;
}

}  // namespace nibble::abi
