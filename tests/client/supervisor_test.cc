// The supervisor with children that are shell scripts: restarts, last words, order of stopping.
// Nothing here waits for a time to pass; each wait is for an event.
#include "client/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/flags.h"
#include "common/process.h"

namespace fathom::client {
namespace {

class SupervisorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { BlockStopSignals(); }

  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/fathom-supervisor-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  ChildSpec Shell(const std::string& name, const std::string& script, int stop_stage = 0) const {
    ChildSpec spec;
    spec.name = name;
    spec.argv = {"/bin/sh", "-c", "cd " + dir_ + "\n" + script, name};
    spec.stop_stage = stop_stage;
    return spec;
  }

  SupervisorOptions Options() const {
    return {.run_dir = dir_, .backoff_first_us = 1000, .backoff_max_us = 4000};
  }

  std::string ReadFile(const std::string& name) const {
    std::ifstream file(dir_ + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  template <class Done>
  static std::optional<Supervisor::Verdict> PollUntil(Supervisor& supervisor, const Done& done) {
    while (!done()) {
      if (auto verdict = supervisor.Poll(-1)) return verdict;
    }
    return std::nullopt;
  }

  std::string dir_;
  RealClock clock_;
};

TEST_F(SupervisorTest, HearsPortsAndPhasesAndKeepsThePortOverARestart) {
  Supervisor supervisor(Options(), &clock_);
  ChildSpec spec = Shell("router", R"(
    echo "$@" >> starts
    echo '{"event":"phase","name":"load","us":5}'
    echo 'not for machines'
    echo '{"role":"router","pid":1,"grpc_port":4711}'
    read -r line < fifo)");
  spec.ports["grpc_port"] = {"--grpc-port", 0};
  ASSERT_EQ(mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  ASSERT_TRUE(supervisor.Add(spec).ok());
  const auto listening = [&] { return supervisor.child(0).listening_at_us.has_value(); };
  ASSERT_FALSE(PollUntil(supervisor, listening));
  EXPECT_EQ(supervisor.child(0).ports.at("grpc_port"), 4711);
  ASSERT_EQ(supervisor.child(0).phases.size(), 1u);
  EXPECT_EQ(supervisor.child(0).phases[0].name, "load");
  EXPECT_EQ(supervisor.child(0).phases[0].us, 5);

  kill(supervisor.child(0).pid, SIGKILL);
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths == 1; }));
  EXPECT_EQ(supervisor.child(0).last_code, 128 + SIGKILL);
  EXPECT_EQ(supervisor.TakeNotes().size(), 1u);
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).pid != 0 && listening(); }));
  EXPECT_EQ(ReadFile("starts"), "--grpc-port 0\n--grpc-port 4711\n");
  supervisor.Stop(/*grace_us=*/10'000'000);
}

TEST_F(SupervisorTest, AChildsEnvironmentIsOursWithItsChanges) {
  ASSERT_EQ(setenv("FATHOM_TEST_KEPT", "kept", 1), 0);
  ASSERT_EQ(setenv("FATHOM_TEST_CHANGED", "ours", 1), 0);
  Supervisor supervisor(Options(), &clock_);
  ChildSpec spec = Shell("worker-0", R"(
    echo "$FATHOM_TEST_KEPT $FATHOM_TEST_CHANGED" > variables
    exit 66)");
  spec.environment["FATHOM_TEST_CHANGED"] = "its own";
  ASSERT_TRUE(supervisor.Add(spec).ok());
  EXPECT_TRUE(PollUntil(supervisor, [] { return false; }).has_value());
  EXPECT_EQ(ReadFile("variables"), "kept its own\n");
}

TEST_F(SupervisorTest, BadModelEndsTheWholeWithTheLastLine) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(
      supervisor.Add(Shell("worker-0", "echo first >&2; echo 'm.safetensors: broken' >&2; exit 66"))
          .ok());
  const auto verdict = PollUntil(supervisor, [] { return false; });
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code, kExitBadModel);
  EXPECT_EQ(verdict->message, "worker-0: m.safetensors: broken");
  EXPECT_EQ(ReadFile("worker-0.log"), "first\nm.safetensors: broken\n");
}

TEST_F(SupervisorTest, LastLineOfALogIsItsText) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(
      supervisor.Add(Shell("w", R"(echo '{"level":"error","msg":"no such flag"}' >&2; exit 64)"))
          .ok());
  const auto verdict = PollUntil(supervisor, [] { return false; });
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code, kExitUsage);
  EXPECT_EQ(verdict->message, "w: no such flag");
}

TEST_F(SupervisorTest, AStartThatFailsAgainAndAgainEnds) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(supervisor.Add(Shell("w", "echo start >> starts; exit 70")).ok());
  const auto verdict = PollUntil(supervisor, [] { return false; });
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code, kExitInternal);
  EXPECT_EQ(ReadFile("starts"), "start\nstart\nstart\n");
}

TEST_F(SupervisorTest, AfterReadyItNeverGivesUp) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(supervisor.Add(Shell("w", "exit 70")).ok());
  supervisor.MarkReady();
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths >= 8; }));
}

TEST_F(SupervisorTest, StopsStageByStage) {
  Supervisor supervisor(Options(), &clock_);
  const std::string script = R"(
    trap 'echo "$0" >> order; exit 0' TERM
    echo '{"role":"x","pid":1}'
    while :; do sleep 0.01; done)";
  ASSERT_TRUE(supervisor.Add(Shell("scheduler", script, 2)).ok());
  ASSERT_TRUE(supervisor.Add(Shell("worker", script, 1)).ok());
  ASSERT_TRUE(supervisor.Add(Shell("router", script, 0)).ok());
  ASSERT_FALSE(PollUntil(supervisor, [&] {
    return supervisor.child(0).listening_at_us && supervisor.child(1).listening_at_us &&
           supervisor.child(2).listening_at_us;
  }));
  EXPECT_TRUE(supervisor.Stop(/*grace_us=*/60'000'000));
  EXPECT_EQ(ReadFile("order"), "router\nworker\nscheduler\n");
}

TEST_F(SupervisorTest, ASecondStopSignalEndsAtOnce) {
  Supervisor supervisor(Options(), &clock_);
  // Does not obey SIGTERM, but answers it with a signal of impatience to the supervisor.
  ASSERT_TRUE(supervisor
                  .Add(Shell("router", R"(
    trap 'kill -INT $PPID' TERM
    echo '{"role":"x","pid":1}'
    while :; do sleep 0.01; done)"))
                  .ok());
  ASSERT_FALSE(
      PollUntil(supervisor, [&] { return supervisor.child(0).listening_at_us.has_value(); }));
  kill(getpid(), SIGTERM);
  const auto verdict = PollUntil(supervisor, [] { return false; });
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code, kExitOk);
  EXPECT_FALSE(supervisor.Stop(/*grace_us=*/600'000'000))
      << "killed, long before the grace is over";
}

TEST_F(SupervisorTest, ChildrenHaveNoBlockedSignalsAndAGroupOfTheirOwn) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(supervisor
                  .Add(Shell("w", R"(
    grep SigBlk /proc/self/status > mask
    echo "$(cut -d' ' -f5 /proc/$$/stat) $$" > group
    exit 66)"))
                  .ok());
  ASSERT_TRUE(PollUntil(supervisor, [] { return false; }));
  EXPECT_EQ(ReadFile("mask"), "SigBlk:\t0000000000000000\n");
  std::istringstream group(ReadFile("group"));
  int64_t pgrp = 0, pid = -1;
  group >> pgrp >> pid;
  EXPECT_EQ(pgrp, pid);
}

TEST_F(SupervisorTest, AMissingProgramIsAnError) {
  Supervisor supervisor(Options(), &clock_);
  ChildSpec spec = Shell("w", "");
  spec.argv = {dir_ + "/no-such-program"};
  EXPECT_TRUE(absl::IsNotFound(supervisor.Add(spec).status()));
}

TEST(RestartDelayTest, DoublesUpToItsLimit) {
  const SupervisorOptions options;
  EXPECT_EQ(RestartDelayUs(options, 1), 100'000);
  EXPECT_EQ(RestartDelayUs(options, 2), 200'000);
  EXPECT_EQ(RestartDelayUs(options, 6), 3'200'000);
  EXPECT_EQ(RestartDelayUs(options, 7), 5'000'000);
  EXPECT_EQ(RestartDelayUs(options, 1'000'000), 5'000'000);
}

}  // namespace
}  // namespace fathom::client
