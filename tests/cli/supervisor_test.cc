// The supervisor with shell scripts as children: restarts, final exit codes, the order of stopping.
// No test waits for a time to pass; each wait is for an event.
#include "cli/serve/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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
  const std::vector<std::string> notes = supervisor.TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("router was ended by signal 9, SIGKILL"), std::string::npos) << notes[0];
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).pid != 0 && listening(); }));
  EXPECT_EQ(ReadFile("starts"), "--grpc-port 0\n--grpc-port 4711\n");
  supervisor.Stop(/*grace_us=*/10'000'000);
}

TEST_F(SupervisorTest, AChildThatIsEndedStartsAgain) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_EQ(mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  ASSERT_TRUE(supervisor
                  .Add(Shell("worker-0", R"(
    trap '' TERM
    echo '{"role":"worker"}'
    read -r line < fifo)"))
                  .ok());
  const auto listening = [&] { return supervisor.child(0).listening_at_us.has_value(); };
  ASSERT_FALSE(PollUntil(supervisor, listening));
  supervisor.End(0, "stands still");
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths == 1; }));
  EXPECT_EQ(supervisor.child(0).last_code, 128 + SIGKILL);
  const std::vector<std::string> notes = supervisor.TakeNotes();
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_EQ(notes[0], "worker-0 stands still");
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).pid != 0 && listening(); }));
  supervisor.Stop(/*grace_us=*/0);
  supervisor.End(0, "is down already");
  EXPECT_TRUE(supervisor.TakeNotes().empty());
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
  // The child ignores SIGTERM and answers it with a stop signal to the supervisor.
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

// A subreaper inherits orphans like process 1 of a container.
TEST_F(SupervisorTest, InheritedOrphansAreReaped) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  ASSERT_EQ(mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  {
    Supervisor supervisor(Options(), &clock_);
    supervisor.MarkReady();
    ASSERT_TRUE(
        supervisor.Add(Shell("w", "sh -c 'read -r line < fifo' & echo $! > orphan; exit 0")).ok());
    ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths == 1; }));
    const pid_t orphan = std::stoi(ReadFile("orphan"));
    ASSERT_EQ(kill(orphan, 0), 0) << "it waits";
    kill(orphan, SIGKILL);
    // Other events may come meanwhile; kill would still find a zombie.
    for (int i = 0; i < 1000 && kill(orphan, 0) == 0; ++i) supervisor.Poll(10);
    EXPECT_EQ(kill(orphan, 0), -1);
    EXPECT_EQ(errno, ESRCH);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_F(SupervisorTest, AMissingProgramIsAnError) {
  Supervisor supervisor(Options(), &clock_);
  ChildSpec spec = Shell("w", "");
  spec.argv = {dir_ + "/no-such-program"};
  EXPECT_TRUE(absl::IsNotFound(supervisor.Add(spec).status()));
}

TEST_F(SupervisorTest, AProgramThatIsBeingReplacedIsTriedAgain) {
  Supervisor supervisor(Options(), &clock_);
  const std::string program = dir_ + "/program";
  const auto install = [&] {
    std::ofstream(program + ".new") << "#!/bin/sh\necho '{\"role\":\"x\"}'\nexec sleep 600\n";
    std::filesystem::permissions(program + ".new", std::filesystem::perms::owner_all);
    std::filesystem::rename(program + ".new", program);
  };
  install();
  ChildSpec spec = Shell("w", "");
  spec.argv = {program};
  ASSERT_TRUE(supervisor.Add(spec).ok());
  supervisor.MarkReady();
  const auto up = [&] { return supervisor.child(0).up_at_us.has_value(); };
  ASSERT_FALSE(PollUntil(supervisor, up));
  supervisor.TakeNotes();
  std::filesystem::remove(program);
  kill(supervisor.child(0).pid, SIGKILL);
  ASSERT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths >= 4; }));
  const std::vector<std::string> notes = supervisor.TakeNotes();
  ASSERT_GE(notes.size(), 2u);
  EXPECT_NE(notes[1].find("w was not started: cannot start " + program + ": No such file"),
            std::string::npos)
      << notes[1];
  install();
  ASSERT_FALSE(PollUntil(supervisor, up));
  supervisor.Stop(/*grace_us=*/0);
}

TEST_F(SupervisorTest, WithoutDescriptorsItWaitsForSome) {
  Supervisor supervisor(Options(), &clock_);
  ASSERT_TRUE(supervisor.Add(Shell("w", "echo '{\"role\":\"x\"}'; exec sleep 600")).ok());
  supervisor.MarkReady();
  const auto up = [&] { return supervisor.child(0).up_at_us.has_value(); };
  ASSERT_FALSE(PollUntil(supervisor, up));
  std::vector<int> taken;
  rlimit usual{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  const rlimit few{64, usual.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  for (int fd = 0; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) taken.push_back(fd);
  // The three descriptors of the child are free again; two pipes need four.
  kill(supervisor.child(0).pid, SIGKILL);
  EXPECT_FALSE(PollUntil(supervisor, [&] { return supervisor.child(0).deaths >= 3; }));
  for (const int fd : taken) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
  EXPECT_FALSE(PollUntil(supervisor, up));
  supervisor.Stop(/*grace_us=*/0);
}

// With a clock of its own, only the lengths of the child's lives decide.
TEST_F(SupervisorTest, OnlyDeathsDuringOrSoonAfterTheStartDelayTheNext) {
  ManualClock clock;
  SupervisorOptions options = Options();
  options.backoff_first_us = 1;
  options.healthy_us = 1'000'000;
  Supervisor supervisor(options, &clock);
  ChildSpec spec = Shell("w", R"(
    echo '{"role":"x"}'
    echo '{"event":"phase","name":"register","us":1}'
    exec sleep 600)");
  spec.ready_phase = "register";
  ASSERT_TRUE(supervisor.Add(spec).ok());
  supervisor.MarkReady();
  const auto up = [&] { return supervisor.child(0).up_at_us.has_value(); };
  const auto kill_and_wait = [&] {
    const pid_t pid = supervisor.child(0).pid;
    kill(pid, SIGKILL);
    return !PollUntil(supervisor, [&] {
      clock.Advance(1);
      return supervisor.child(0).pid != pid && supervisor.child(0).pid != 0 && up();
    });
  };
  ASSERT_FALSE(PollUntil(supervisor, up));
  for (int i = 0; i < 5; ++i) {
    clock.Advance(6'000'000);
    ASSERT_TRUE(kill_and_wait());
    EXPECT_EQ(supervisor.child(0).deaths, 1);
    EXPECT_NE(supervisor.TakeNotes().at(0).find("it starts again in 0 ms"), std::string::npos);
  }
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(kill_and_wait());
  EXPECT_EQ(supervisor.child(0).deaths, 4) << "one after the other, each soon after its start";
  supervisor.Stop(/*grace_us=*/0);
}

TEST_F(SupervisorTest, LogsAreAppendedAndBounded) {
  const std::string line(99, 'x');
  const auto append = [&](int lines) {
    auto file = RotatingFile::Open(dir_ + "/a.log", 1000);
    ASSERT_TRUE(file.ok()) << ToString(file.status());
    for (int i = 0; i < lines; ++i) (*file)->Append(line);
    EXPECT_EQ((*file)->dropped_lines(), 0);
  };
  append(4);
  append(4);  // Another life.
  EXPECT_EQ(ReadFile("a.log").size(), 800u);
  append(3);
  EXPECT_EQ(ReadFile("a.log.1").size(), 1000u);
  EXPECT_EQ(ReadFile("a.log").size(), 100u);
  append(25);
  EXPECT_EQ(std::filesystem::file_size(dir_ + "/a.log.1"), 1000u);
  EXPECT_LE(std::filesystem::file_size(dir_ + "/a.log"), 1000u);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/a.log.2"));
  EXPECT_EQ(std::filesystem::status(dir_ + "/a.log").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_FALSE(RotatingFile::Open(dir_ + "/none/a.log", 1000).ok());
}

TEST_F(SupervisorTest, ALineThatCannotBeWrittenIsDroppedAndTheNextOnesAreWhole) {
  auto file = RotatingFile::Open(dir_ + "/a.log", 1 << 20);
  ASSERT_TRUE(file.ok());
  // Simulates a full disk for this process: writes beyond 150 bytes fail, and a write across the
  // limit is cut.
  rlimit usual{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &usual), 0);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit full{150, usual.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  const std::string line(99, 'x');
  for (int i = 0; i < 4; ++i) (*file)->Append(line);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &usual), 0);
  EXPECT_EQ((*file)->dropped_lines(), 3);
  (*file)->Append("after");
  EXPECT_EQ(ReadFile("a.log"), line + "\n" + std::string(50, 'x') + "\nafter\n");
}

TEST(RestartDelayTest, DoublesUpToItsLimit) {
  const SupervisorOptions options;
  EXPECT_EQ(RestartDelayUs(options, 1), 0);
  EXPECT_EQ(RestartDelayUs(options, 2), 100'000);
  EXPECT_EQ(RestartDelayUs(options, 3), 200'000);
  EXPECT_EQ(RestartDelayUs(options, 7), 3'200'000);
  EXPECT_EQ(RestartDelayUs(options, 8), 5'000'000);
  EXPECT_EQ(RestartDelayUs(options, 1'000'000), 5'000'000);
}

}  // namespace
}  // namespace fathom::client
