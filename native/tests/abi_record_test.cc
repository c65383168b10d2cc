// SPDX-License-Identifier: Apache-2.0
//
// Records of packed matrices: what is written comes back bit for bit for every format and any
// numbers of threads; every damaged byte, foreign file and wrong argument is refused in words.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "native/tests/canonical_matrix.h"

namespace nibble {
namespace {

class AbiRecord : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/nibble_record_XXXXXX";
    const int fd = mkstemp(name);
    ASSERT_GE(fd, 0);
    close(fd);
    path_ = name;
  }
  void TearDown() override { unlink(path_.c_str()); }

  std::vector<uint8_t> Contents() const {
    std::vector<uint8_t> bytes;
    FILE* f = std::fopen(path_.c_str(), "rb");
    for (int c; f != nullptr && (c = std::fgetc(f)) != EOF;) bytes.push_back(uint8_t(c));
    if (f != nullptr) std::fclose(f);
    return bytes;
  }
  void SetContents(const std::vector<uint8_t>& bytes) const {
    FILE* f = std::fopen(path_.c_str(), "wb");
    ASSERT_NE(f, nullptr);
    if (!bytes.empty()) {
      ASSERT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), f), bytes.size());
    }
    std::fclose(f);
  }

  static int64_t RecordBytes(const nb_weight_format& f, int64_t rows, int64_t cols) {
    int64_t bytes = -1;
    EXPECT_EQ(nb_matrix_record_bytes(&f, rows, cols, &bytes), NB_OK) << nb_last_error();
    return bytes;
  }
  nb_status Read(nb_context* context, const nb_weight_format& f, int64_t rows, int64_t cols,
                 int64_t offset, MatrixPtr* matrix) const {
    nb_matrix* m = reinterpret_cast<nb_matrix*>(matrix);
    const nb_status status = nb_matrix_read(context, &f, rows, cols, path_.c_str(), offset,
                                            RecordBytes(f, rows, cols), &m);
    EXPECT_EQ(status == NB_OK, m != nullptr) << "a failed call leaves NULL";
    matrix->reset(m);
    return status;
  }

  std::string path_;
};

TEST_F(AbiRecord, EveryFormatComesBackBitForBit) {
  std::mt19937_64 random = TestRandom(51);
  const ContextPtr one = MakeContext(1), two = MakeContext(2), five = MakeContext(5);
  for (const nb_weight_format& f : AllFormats()) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {17, 5}, {100, 300}}) {
      SCOPED_TRACE(FormatName(f) + " " + std::to_string(rows) + "x" + std::to_string(cols));
      const CanonicalMatrix m = CanonicalMatrix::Random(f, rows, cols, random);
      const MatrixPtr packed = m.Pack(two.get());
      const int64_t bytes = RecordBytes(f, rows, cols);
      EXPECT_EQ(bytes % 4096, 0);
      SetContents({});
      for (const int64_t offset : {int64_t{0}, bytes + 12345}) {
        ASSERT_EQ(nb_matrix_write(five.get(), packed.get(), path_.c_str(), offset, bytes), NB_OK)
            << nb_last_error();
        for (nb_context* context : {one.get(), two.get(), five.get()}) {
          MatrixPtr read;
          ASSERT_EQ(Read(context, f, rows, cols, offset, &read), NB_OK) << nb_last_error();
          nb_matrix_info info = {}, expected = {};
          info.struct_size = expected.struct_size = sizeof(info);
          ASSERT_EQ(nb_matrix_get_info(read.get(), &info), NB_OK);
          ASSERT_EQ(nb_matrix_get_info(packed.get(), &expected), NB_OK);
          EXPECT_EQ(std::memcmp(&info, &expected, sizeof(info)), 0);
          CanonicalMatrix back(f, rows, cols);
          ASSERT_EQ(back.UnpackFrom(context, read.get()), NB_OK) << nb_last_error();
          EXPECT_EQ(back.codes, m.codes);
          EXPECT_EQ(back.high, m.high);
          EXPECT_EQ(back.scales, m.scales);
          EXPECT_EQ(back.factors, m.factors);
        }
      }
    }
  }
}

// Large enough for many blocks, so that every thread has some.
TEST_F(AbiRecord, ManyBlocks) {
  std::mt19937_64 random = TestRandom(52);
  const nb_weight_format f = Format(NB_I4, NB_E4M3, 128);
  const int64_t rows = 1111, cols = 4096;
  const ContextPtr context = MakeContext(3);
  const CanonicalMatrix m = CanonicalMatrix::Random(f, rows, cols, random);
  const MatrixPtr packed = m.Pack(context.get());
  const int64_t bytes = RecordBytes(f, rows, cols);
  ASSERT_EQ(nb_matrix_write(context.get(), packed.get(), path_.c_str(), 0, bytes), NB_OK);
  const std::vector<uint8_t> contents = Contents();
  ASSERT_EQ(static_cast<int64_t>(contents.size()), bytes);
  // The same bytes by one thread.
  SetContents({});
  ASSERT_EQ(nb_matrix_write(MakeContext(1).get(), packed.get(), path_.c_str(), 0, bytes), NB_OK);
  EXPECT_EQ(Contents(), contents);
  for (int i = 0; i < 50; ++i) {  // one damaged bit, anywhere in the panels
    std::vector<uint8_t> damaged = contents;
    const int64_t at = 16384 + UniformInt(random, 0, 1111 / 16 * 8 * 16 * (128 * 8 + 16) / 16);
    damaged[at] ^= uint8_t(1 << UniformInt(random, 0, 7));
    SetContents(damaged);
    MatrixPtr read;
    ExpectFailure(Read(context.get(), f, rows, cols, 0, &read), NB_INVALID_ARGUMENT,
                  "nb_matrix_read", {"path: \"" + path_, "damaged"});
  }
}

TEST_F(AbiRecord, EveryDamagedByteIsFound) {
  std::mt19937_64 random = TestRandom(53);
  const nb_weight_format f = Format(NB_E3M2, NB_F32, 0);
  const int64_t rows = 20, cols = 30;
  const ContextPtr context = MakeContext(2);
  const CanonicalMatrix m = CanonicalMatrix::Random(f, rows, cols, random);
  const MatrixPtr packed = m.Pack(context.get());
  ASSERT_EQ(nb_matrix_write(context.get(), packed.get(), path_.c_str(), 0,
                            RecordBytes(f, rows, cols)), NB_OK);
  const std::vector<uint8_t> contents = Contents();
  int64_t used = 0;
  for (size_t at = 0; at < contents.size(); ++at) {
    const int fd = open(path_.c_str(), O_WRONLY);
    const uint8_t damaged = contents[at] ^ uint8_t(1 << at % 8);
    ASSERT_EQ(pwrite(fd, &damaged, 1, static_cast<off_t>(at)), 1);
    MatrixPtr read;
    const nb_status status = Read(context.get(), f, rows, cols, 0, &read);
    if (status == NB_OK) {  // padding between the parts
      EXPECT_EQ(contents[at], 0);
      CanonicalMatrix back(f, rows, cols);
      ASSERT_EQ(back.UnpackFrom(context.get(), read.get()), NB_OK);
      ASSERT_EQ(back.codes, m.codes);
      ASSERT_EQ(back.high, m.high);
      ASSERT_EQ(back.scales, m.scales);
    } else {
      ++used;
      ExpectFailure(status, NB_INVALID_ARGUMENT, "nb_matrix_read", {"path: \"" + path_});
    }
    ASSERT_EQ(pwrite(fd, &contents[at], 1, static_cast<off_t>(at)), 1);
    close(fd);
  }
  // Header and checksums, factors of 32 rows, two panels of 12 bytes a column and 16 scales.
  EXPECT_EQ(used, 88 + 3 * 8 + 32 * 4 + 2 * (32 * 12 + 64));
}

TEST_F(AbiRecord, TruncatedFiles) {
  const nb_weight_format f = Format(NB_BF16);
  const ContextPtr context = MakeContext(2);
  const MatrixPtr packed =
      QuantizeMatrix(context.get(), f, std::vector<float>(40 * 50, 1.5f), 40, 50);
  const int64_t bytes = RecordBytes(f, 40, 50);
  ASSERT_EQ(nb_matrix_write(context.get(), packed.get(), path_.c_str(), 0, bytes), NB_OK);
  for (const int64_t size : {bytes - 1, bytes - 4096, int64_t{4096}, int64_t{87}, int64_t{0}}) {
    ASSERT_EQ(truncate(path_.c_str(), size), 0);
    MatrixPtr read;
    ExpectFailure(Read(context.get(), f, 40, 50, 0, &read), NB_INVALID_ARGUMENT, "nb_matrix_read",
                  {path_, "ends before"});
  }
  // A sparse file of the right size.
  ASSERT_EQ(truncate(path_.c_str(), bytes), 0);
  MatrixPtr read;
  ExpectFailure(Read(context.get(), f, 40, 50, 0, &read), NB_INVALID_ARGUMENT, "nb_matrix_read",
                {path_, "no record"});
}

TEST_F(AbiRecord, OtherMatricesAreRefused) {
  const ContextPtr context = MakeContext(2);
  const nb_weight_format f = Format(NB_I4, NB_F16, 32);
  const std::vector<float> weights(32 * 64, 1.5f);
  const MatrixPtr packed = QuantizeMatrix(context.get(), f, weights, 32, 64);
  ASSERT_EQ(nb_matrix_write(context.get(), packed.get(), path_.c_str(), 0, RecordBytes(f, 32, 64)),
            NB_OK);
  const auto refused = [&](const nb_weight_format& other, int64_t rows, int64_t cols,
                           const char* part) {
    MatrixPtr read;
    ExpectFailure(Read(context.get(), other, rows, cols, 0, &read), NB_INVALID_ARGUMENT,
                  "nb_matrix_read", {path_, part});
  };
  refused(Format(NB_I4, NB_BF16, 32), 32, 64, "another format");
  refused(Format(NB_I4, NB_F16, 16), 32, 64, "another format");
  refused(Format(NB_I4, NB_F16, 0), 32, 64, "another format");
  refused(f, 31, 64, "another shape");
  refused(f, 32, 63, "another shape");
  // A group size of K and of 0 are the same matrix.
  const MatrixPtr whole =
      QuantizeMatrix(context.get(), Format(NB_I4, NB_F16, 64), weights, 32, 64);
  ASSERT_EQ(nb_matrix_write(context.get(), whole.get(), path_.c_str(), 0, RecordBytes(f, 32, 64)),
            NB_OK);
  MatrixPtr read;
  EXPECT_EQ(Read(context.get(), Format(NB_I4, NB_F16, 0), 32, 64, 0, &read), NB_OK)
      << nb_last_error();
}

TEST_F(AbiRecord, ArgumentsAreChecked) {
  const ContextPtr context = MakeContext(1);
  const nb_weight_format f = Format(NB_I8, NB_F32);
  const MatrixPtr packed = QuantizeMatrix(context.get(), f, std::vector<float>(12, 1.5f), 3, 4);
  const int64_t bytes = RecordBytes(f, 3, 4);
  const char* path = path_.c_str();
  const auto write = [&](nb_context* c, const nb_matrix* m, const char* p, int64_t offset,
                         int64_t n, const std::string& part) {
    ExpectFailure(nb_matrix_write(c, m, p, offset, n), NB_INVALID_ARGUMENT, "nb_matrix_write",
                  {part});
  };
  write(nullptr, packed.get(), path, 0, bytes, "context: NULL");
  write(context.get(), nullptr, path, 0, bytes, "matrix: NULL");
  write(context.get(), packed.get(), nullptr, 0, bytes, "path: NULL");
  for (const int64_t offset : {int64_t{-1}, INT64_MIN, INT64_MAX, INT64_MAX - bytes + 1}) {
    write(context.get(), packed.get(), path, offset, bytes, "offset: " + std::to_string(offset));
  }
  for (const int64_t n : {int64_t{0}, int64_t{-1}, bytes - 1, bytes + 4096, INT64_MAX, INT64_MIN}) {
    write(context.get(), packed.get(), path, 0, n, "record_bytes: " + std::to_string(n));
  }
  write(context.get(), packed.get(), "", 0, bytes, "cannot be opened");
  write(context.get(), packed.get(), "/nonexistent/file", 0, bytes, "No such file");
  write(context.get(), packed.get(), "/", 0, bytes, "directory");
  write(context.get(), packed.get(), "/dev/null", 0, bytes, "not a regular file");

  const auto read = [&](nb_context* c, const nb_weight_format* format, int64_t rows, int64_t cols,
                        const char* p, int64_t offset, int64_t n, const std::string& part) {
    nb_matrix* m = reinterpret_cast<nb_matrix*>(&m);
    ExpectFailure(nb_matrix_read(c, format, rows, cols, p, offset, n, &m), NB_INVALID_ARGUMENT,
                  "nb_matrix_read", {part});
    EXPECT_EQ(m, nullptr);
  };
  ASSERT_EQ(nb_matrix_write(context.get(), packed.get(), path, 0, bytes), NB_OK);
  read(nullptr, &f, 3, 4, path, 0, bytes, "context: NULL");
  read(context.get(), nullptr, 3, 4, path, 0, bytes, "format: NULL");
  read(context.get(), &f, 0, 4, path, 0, bytes, "rows: 0");
  read(context.get(), &f, 3, INT64_MAX, path, 0, bytes, "cols: ");
  read(context.get(), &f, 3, 4, nullptr, 0, bytes, "path: NULL");
  read(context.get(), &f, 3, 4, path, -1, bytes, "offset: -1");
  read(context.get(), &f, 3, 4, path, INT64_MAX, bytes, "offset: ");
  read(context.get(), &f, 3, 4, path, 0, bytes - 1, "record_bytes: ");
  read(context.get(), &f, 3, 4, path, 4096, bytes, "ends before");
  read(context.get(), &f, 3, 4, "/", 0, bytes, "not a regular file");
  read(context.get(), &f, 3, 4, "/dev/zero", 0, bytes, "not a regular file");
  // The largest matrices: sizes alone, nothing is allocated for them.
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  for (const nb_weight_format& any : AllFormats()) {
    int64_t n = 0;
    if (nb_matrix_record_bytes(&any, kMost, 1 << 20, &n) == NB_OK) {
      EXPECT_GT(n, kMost);
      read(context.get(), &any, kMost, 1 << 20, path, 0, n, "ends before");
    }
  }
  ExpectFailure(nb_matrix_record_bytes(&f, 3, 4, nullptr), NB_INVALID_ARGUMENT,
                "nb_matrix_record_bytes", {"bytes: NULL"});
  int64_t unused = 0;
  ExpectFailure(nb_matrix_record_bytes(nullptr, 3, 4, &unused), NB_INVALID_ARGUMENT,
                "nb_matrix_record_bytes", {"format: NULL"});
  EXPECT_EQ(nb_matrix_read(context.get(), &f, 3, 4, path, 0, bytes, nullptr), NB_INVALID_ARGUMENT);
}

// A limit on the size of files stands in for a full disk.
TEST_F(AbiRecord, AFullDiskIsSaid) {
  const ContextPtr context = MakeContext(2);
  const nb_weight_format f = Format(NB_F32);
  const MatrixPtr packed =
      QuantizeMatrix(context.get(), f, std::vector<float>(200 * 300, 1.5f), 200, 300);
  struct rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {65536, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const nb_status status = nb_matrix_write(context.get(), packed.get(), path_.c_str(), 0,
                                           RecordBytes(f, 200, 300));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  ExpectFailure(status, NB_DEVICE_ERROR, "nb_matrix_write",
                {path_, "cannot be written", "too large"});
  // What is there is no record.
  MatrixPtr read;
  EXPECT_EQ(Read(context.get(), f, 200, 300, 0, &read), NB_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace nibble
