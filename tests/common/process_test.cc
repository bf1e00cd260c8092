#include "common/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fathom {
namespace {

// The end of a child that runs `work`: its exit code, or 128 + signal.
template <class Work>
int ExitOf(const Work& work) {
  const pid_t pid = fork();
  if (pid == 0) {
    HandleStopSignals();
    work();
    _exit(99);
  }
  int state = 0;
  EXPECT_EQ(waitpid(pid, &state, 0), pid);
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

TEST(Process, AStopSignalEndsAtOnceUntilSomebodyWaitsForIt) {
  for (const int signal : {SIGTERM, SIGINT}) {
    EXPECT_EQ(ExitOf([&] { raise(signal); }), 0) << "nothing is to be drained yet";
    EXPECT_EQ(ExitOf([&] {
                WaitForStopSignal(0);
                raise(signal);
                _exit(WaitForStopSignal(-1) ? 3 : 4);
              }),
              3);
    EXPECT_EQ(ExitOf([&] {
                WaitForStopSignal(0);
                raise(signal);
                WaitForStopSignal(-1);
                raise(signal);
              }),
              0)
        << "a second one ends it at once";
  }
  EXPECT_EQ(ExitOf([] {
              RequestStop();
              _exit(WaitForStopSignal(-1) ? 3 : 4);
            }),
            3);
}

TEST(Process, Sha256OfKnownTexts) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Process, RandomIdsAreIdsAndDiffer) {
  const std::string a = RandomId(), b = RandomId();
  EXPECT_EQ(a.size(), 32u);
  EXPECT_NE(a, b);
  EXPECT_EQ(a.find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST(Process, ListeningLineIsOneLineOfJson) {
  testing::internal::CaptureStdout();
  PrintListening("router", {{"grpc_port", 8001}, {"http_port", 8000}});
  const std::string line = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(line.starts_with(R"({"role":"router","pid":)")) << line;
  EXPECT_TRUE(line.ends_with(R"(,"grpc_port":8001,"http_port":8000})"
                             "\n"))
      << line;
}

}  // namespace
}  // namespace fathom
