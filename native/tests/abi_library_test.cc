// SPDX-License-Identifier: Apache-2.0
//
// Version, messages, devices, SIMD targets, contexts, read bandwidth.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <regex>
#include <sstream>
#include <thread>

#include "native/tests/abi_test.h"

extern char** environ;

namespace nibble {
namespace {

std::vector<std::string> SimdTargets() {
  char buffer[512];
  EXPECT_EQ(nb_simd_targets(buffer, sizeof(buffer)), NB_OK) << nb_last_error();
  std::istringstream stream(buffer);
  std::vector<std::string> names;
  for (std::string name; stream >> name;) names.push_back(name);
  return names;
}

TEST(AbiLibrary, Versions) {
  EXPECT_EQ(nb_abi_version(), NB_ABI_VERSION);
  EXPECT_TRUE(std::regex_match(nb_version(), std::regex("[0-9]+\\.[0-9]+\\.[0-9]+")))
      << nb_version();
}

TEST(AbiLibrary, LastErrorIsOfTheLastCallThatFailed) {
  std::thread([] {
    EXPECT_STREQ(nb_last_error(), "");
    EXPECT_EQ(nb_context_create("abacus", 1, nullptr), NB_INVALID_ARGUMENT);
    const std::string message = nb_last_error();
    EXPECT_EQ(message, "nb_context_create: context: NULL but a pointer was expected");
    EXPECT_EQ(nb_device_status("cpu"), NB_OK);
    EXPECT_EQ(nb_last_error(), message) << "a call that succeeds keeps it";
    EXPECT_EQ(nb_device_status("abacus"), NB_INVALID_ARGUMENT);
    EXPECT_NE(nb_last_error(), message);
  }).join();
}

TEST(AbiLibrary, Devices) {
  EXPECT_EQ(nb_device_status("cpu"), NB_OK);
  ExpectFailure(nb_device_status(nullptr), NB_INVALID_ARGUMENT, "nb_device_status",
                {"device: NULL"});
  for (const char* name : {"", "cpu ", "CPU", "cpu:0", "cuda", "cuda:", "cuda:x", "cuda:-1",
                           "cuda:0 ", "cuda:12345", "metal"}) {
    ExpectFailure(nb_device_status(name), NB_INVALID_ARGUMENT, "nb_device_status",
                  {std::string("device: \"") + name + "\"", "\"cuda:N\" was expected"});
  }
  ExpectFailure(nb_device_status(std::string(10000, 'x').c_str()), NB_INVALID_ARGUMENT,
                "nb_device_status", {"was expected"});
  // No machine has so many: whether it is the plug-in, the driver or the device that is missing,
  // the reason follows.
  for (const char* name : {"cuda:9999", "cuda:777"}) {
    const std::string refusal = std::string("device: \"") + name + "\" cannot be used: ";
    ExpectFailure(nb_device_status(name), NB_UNSUPPORTED, "nb_device_status", {refusal});
    EXPECT_GT(std::string(nb_last_error()).size(), ("nb_device_status: " + refusal).size() + 10);
    nb_context* context = reinterpret_cast<nb_context*>(&context);
    ExpectFailure(nb_context_create(name, 1, &context), NB_UNSUPPORTED, "nb_context_create",
                  {refusal});
    EXPECT_EQ(context, nullptr);
  }
}

TEST(AbiLibrary, Contexts) {
  EXPECT_EQ(nb_context_threads(nullptr), 0);
  EXPECT_EQ(nb_context_destroy(nullptr), NB_OK);
  EXPECT_GE(nb_available_threads(), 1);
  EXPECT_EQ(nb_context_threads(MakeContext(0).get()), nb_available_threads());
  for (const int32_t threads : {1, 2, 5, 64}) {
    EXPECT_EQ(nb_context_threads(MakeContext(threads).get()), threads) << "honoured as given";
  }
  for (const int32_t threads : {-1, 1025, INT32_MAX, INT32_MIN}) {
    nb_context* context = reinterpret_cast<nb_context*>(&context);
    ExpectFailure(nb_context_create("cpu", threads, &context), NB_INVALID_ARGUMENT,
                  "nb_context_create", {"threads: " + std::to_string(threads), "0..1024"});
    EXPECT_EQ(context, nullptr);
  }
  ExpectFailure(nb_context_create("cpu", 1, nullptr), NB_INVALID_ARGUMENT, "nb_context_create",
                {"context: NULL"});
}

TEST(AbiLibrary, ReadBandwidth) {
  const ContextPtr context = MakeContext(2);
  constexpr int64_t kMiB = 1 << 20;
  for (const int64_t bytes : {kMiB, kMiB + 12345, 16 * kMiB}) {
    double rate = 0;
    ASSERT_EQ(nb_measure_read_bandwidth(context.get(), bytes, 3, &rate), NB_OK) << nb_last_error();
    EXPECT_GT(rate, 1e7) << "slower than any machine";
    EXPECT_LT(rate, 1e14) << "faster than any machine: the reads were optimized away";
  }
  // Many threads, so that the last ones have few bytes.
  double rate = 0;
  EXPECT_EQ(nb_measure_read_bandwidth(MakeContext(7).get(), kMiB, 1, &rate), NB_OK);
  rate = -1;
  for (const int64_t bytes : {int64_t{0}, kMiB - 1, int64_t{-1}, INT64_MIN}) {
    ExpectFailure(nb_measure_read_bandwidth(context.get(), bytes, 1, &rate), NB_INVALID_ARGUMENT,
                  "nb_measure_read_bandwidth", {"buffer_bytes: " + std::to_string(bytes)});
  }
  for (const int32_t repeats : {0, -1, 1001, INT32_MAX}) {
    ExpectFailure(nb_measure_read_bandwidth(context.get(), kMiB, repeats, &rate),
                  NB_INVALID_ARGUMENT, "nb_measure_read_bandwidth",
                  {"repeats: " + std::to_string(repeats)});
  }
  ExpectFailure(nb_measure_read_bandwidth(context.get(), kMiB, 1, nullptr), NB_INVALID_ARGUMENT,
                "nb_measure_read_bandwidth", {"bytes_per_second: NULL"});
  ExpectFailure(nb_measure_read_bandwidth(nullptr, kMiB, 1, &rate), NB_INVALID_ARGUMENT,
                "nb_measure_read_bandwidth", {"context: NULL"});
  ExpectFailure(nb_measure_read_bandwidth(context.get(), INT64_MAX, 1, &rate), NB_OUT_OF_MEMORY,
                "nb_measure_read_bandwidth", {"memory"});
  EXPECT_EQ(rate, -1);
}

TEST(AbiLibrary, SimdTargets) {
  const std::vector<std::string> names = SimdTargets();
  ASSERT_FALSE(names.empty());
  EXPECT_NE(std::find(names.begin(), names.end(), nb_simd_target()), names.end())
      << nb_simd_target();
  char buffer[512];
  ASSERT_EQ(nb_simd_targets(buffer, 512), NB_OK);
  const auto exact = static_cast<int64_t>(std::strlen(buffer)) + 1;
  std::vector<char> fitting(static_cast<size_t>(exact), 'x');
  EXPECT_EQ(nb_simd_targets(fitting.data(), exact), NB_OK);
  EXPECT_STREQ(fitting.data(), buffer);
  for (const int64_t length : {exact - 1, int64_t{0}, int64_t{-1}, INT64_MIN}) {
    fitting.assign(fitting.size(), 'x');
    ExpectFailure(nb_simd_targets(fitting.data(), length), NB_INVALID_ARGUMENT, "nb_simd_targets",
                  {"buffer_length: " + std::to_string(length)});
    EXPECT_EQ(fitting[0], 'x');
  }
  ExpectFailure(nb_simd_targets(nullptr, 100), NB_INVALID_ARGUMENT, "nb_simd_targets",
                {"buffer: NULL"});
}

// ----------------------------------------------------- NIBBLE_SIMD_TARGET --
// The variable is read once a process, so each value needs a process of its own: this test
// program again, with one disabled test as its whole work.

std::string ThisProgram() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return std::string(path, length > 0 ? static_cast<size_t>(length) : 0);
}

int RunChild(const std::string& simd_target, const std::string& test) {
  std::vector<std::string> environment;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string entry = *e;
    const bool replaced = entry.rfind("NIBBLE_SIMD_TARGET=", 0) == 0 ||
                          entry.rfind("NIBBLE_TEST_SEED=", 0) == 0;
    if (!replaced) environment.push_back(entry);
  }
  environment.push_back("NIBBLE_TEST_SEED=" + std::to_string(TestSeed()));
  environment.push_back("NIBBLE_SIMD_TARGET=" + simd_target);
  std::vector<char*> envp;
  for (std::string& e : environment) envp.push_back(e.data());
  envp.push_back(nullptr);
  // Under an emulator, the system itself cannot start this program: NIBBLE_TEST_EMULATOR is the
  // emulator's path and arguments, separated by blanks.
  std::vector<std::string> words;
  if (const char* emulator = std::getenv("NIBBLE_TEST_EMULATOR")) {
    std::istringstream stream(emulator);
    for (std::string word; stream >> word;) words.push_back(word);
  }
  words.push_back(words.empty() ? "/proc/self/exe" : ThisProgram());
  const std::string program = words[0];
  words.insert(words.end(), {"--gtest_filter=" + test, "--gtest_also_run_disabled_tests",
                             "--gtest_output="});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return -1;
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string RequestedTarget() {
  const char* name = std::getenv("NIBBLE_SIMD_TARGET");
  return name == nullptr ? "" : name;
}

TEST(AbiSimdChild, DISABLED_UsesTheTarget) {
  const std::string best = SimdTargets()[0];
  const ContextPtr context = MakeContext(1);
  EXPECT_EQ(nb_simd_target(), RequestedTarget().empty() ? best : RequestedTarget());
  double rate = 0;  // a kernel runs on it
  EXPECT_EQ(nb_measure_read_bandwidth(context.get(), 1 << 20, 1, &rate), NB_OK);
  EXPECT_GT(SimdTargets().size(), 0u);
}

TEST(AbiSimdChild, DISABLED_RefusesTheTarget) {
  for (int i = 0; i < 2; ++i) {  // every time
    nb_context* context = reinterpret_cast<nb_context*>(&context);
    ExpectFailure(nb_context_create("cpu", 1, &context), NB_INVALID_ARGUMENT, "nb_context_create",
                  {"NIBBLE_SIMD_TARGET", "\"" + RequestedTarget() + "\"", SimdTargets()[0]});
    EXPECT_EQ(context, nullptr);
  }
  EXPECT_EQ(nb_simd_target(), SimdTargets()[0]);
}

TEST(AbiSimdChild, DISABLED_CannotRunTheTarget) {
  nb_context* context = nullptr;
  ExpectFailure(nb_context_create("cpu", 1, &context), NB_UNSUPPORTED, "nb_context_create",
                {"NIBBLE_SIMD_TARGET", "cannot run it", SimdTargets()[0]});
  EXPECT_EQ(context, nullptr);
}

TEST(AbiLibrary, SimdTargetFromTheEnvironment) {
  for (const std::string& name : SimdTargets()) {
    EXPECT_EQ(RunChild(name, "AbiSimdChild.DISABLED_UsesTheTarget"), 0) << name;
  }
  EXPECT_EQ(RunChild("", "AbiSimdChild.DISABLED_UsesTheTarget"), 0);
  for (const char* name : {"avx2", "Unknown", "AVX", "x86", "AVX2 "}) {
    EXPECT_EQ(RunChild(name, "AbiSimdChild.DISABLED_RefusesTheTarget"), 0) << name;
  }
#if defined(__x86_64__)
  // A name of the build's CPU family that this build leaves out.
  EXPECT_EQ(RunChild("SSSE3", "AbiSimdChild.DISABLED_CannotRunTheTarget"), 0);
  // What the CPU does not announce is refused, whether it would execute or not.
  const std::vector<std::string> announced = SimdTargets();
  for (const char* name : {"AVX3_ZEN4", "AVX2_VNNI"}) {
    if (std::find(announced.begin(), announced.end(), name) != announced.end()) continue;
    EXPECT_EQ(RunChild(name, "AbiSimdChild.DISABLED_CannotRunTheTarget"), 0) << name;
  }
#endif
}

// The forward step of abi_forward_test.cc on every target.
TEST(AbiLibrary, ForwardStepOnEveryTarget) {
  for (const std::string& name : SimdTargets()) {
    EXPECT_EQ(RunChild(name, "AbiForward.*"), 0) << name;
  }
}

}  // namespace
}  // namespace nibble
