// Recordings: a core that replays a recording takes the actions of the recorded core. A file is
// read up to its last whole record, and an error about damage has its offset.
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "scheduler/driver.h"
#include "scheduler/recorder/file_recorder.h"
#include "scheduler/recorder/replay.h"
#include "tests/scheduler/driver_world.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_world.h"

namespace fathom::scheduler {
namespace {

struct ReadBack {
  absl::Status status;
  std::optional<RecordingHeader> header;
  std::vector<RecordedEvent> events;
  int64_t offset = 0;
  int64_t cut_bytes = 0;
};

ReadBack ReadRecording(const std::string& bytes) {
  std::istringstream stream(bytes);
  RecordingReader reader(&stream);
  ReadBack back;
  absl::StatusOr<RecordingHeader> header = reader.Header();
  back.status = header.status();
  if (header.ok()) back.header = *header;
  while (back.status.ok()) {
    auto next = reader.Next();
    back.status = next.status();
    if (!next.ok() || !*next) break;
    back.events.push_back(**std::move(next));
  }
  back.offset = reader.offset();
  back.cut_bytes = reader.cut_bytes();
  return back;
}

std::string BytesOfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// Makes one recording for each core of a world.
class WorldRecorder final : public sim::WorldObserver {
 public:
  struct Part {
    std::string bytes;
    ActionsHash hash;
    int64_t events = 0;
  };

  void OnCore(const CoreOptions& options) override {
    parts.push_back({EncodeHeader({"build", options}), {}, 0});
  }
  void OnEvent(const Event& event, TimeUs now, const Actions& actions) override {
    ASSERT_TRUE(EncodeEvent(event, now, &parts.back().bytes).ok());
    parts.back().hash.Add(actions);
    ++parts.back().events;
  }

  std::vector<Part> parts;
};

TEST(Recorder, ASimulationReplayedDoesTheSame) {
  for (const char* policy : {"fcfs", "fair"}) {
    WorldRecorder recorder;
    sim::WorldOptions options;
    options.observer = &recorder;
    options.seed = sim::TestSeed(31);
    options.policy = policy;
    options.requests = 400;
    SCOPED_TRACE(fmt::format("FATHOM_SEED={}, policy {}", options.seed, policy));
    sim::World world(options);
    world.Run();
    ASSERT_TRUE(world.failures().empty()) << world.failures()[0];
    ASSERT_GE(recorder.parts.size(), 2u);  // Each run has a takeover.
    for (const WorldRecorder::Part& part : recorder.parts) {
      const ReadBack back = ReadRecording(part.bytes);
      ASSERT_TRUE(back.status.ok()) << ToString(back.status);
      EXPECT_EQ(back.header->options.policy, policy);
      EXPECT_EQ(back.cut_bytes, 0);
      Replay replay(back.header->options);
      for (const RecordedEvent& recorded : back.events) {
        const absl::Status status = replay.Step(recorded.event, recorded.time_us);
        ASSERT_TRUE(status.ok()) << ToString(status);
      }
      EXPECT_EQ(replay.events(), part.events);
      EXPECT_EQ(replay.hash(), part.hash.value());
    }
  }
}

// An event of each kind, with values that a wrong conversion would lose.
std::vector<Event> EachKind() {
  CoreHarness harness;
  Submit submit{.attempt = AttemptId{7},
                .key = {"tenant", "a"},
                .record = MakeRecord("a", 5, 3),
                .router_blob = std::string("\0blob", 5),
                .have = {2},
                .deadline_us = 1'234'567,
                .replay = true,
                .age_us = 999};
  submit.record->key = submit.key;
  submit.record->sequences = {{.ids = {4, 5}, .logprobs = {}}};
  submit.record->request.sampling.logit_bias = {{3, -1.5f}, {9, 2.0f}};
  GroupLimits limits = CoreHarness::Limits();
  limits.mixed_step_tokens = 5;
  limits.lanes = 2;
  limits.protocol = kProtocol2;
  limits.draft_max = 3;
  StepResult result{.term = TermId{1}, .epoch = EpochId{1}, .step = StepId{0}, .collectives = 9};
  result.rows = {
      {.row = 0, .sequence = 1, .position = 2, .ids = {4}, .logprobs = {{4, -0.5f}}, .drafted = 2},
      {.row = 1, .fault = RowFault::kNonFiniteLogits, .fault_detail = "layer 3"}};
  return {harness.UpEvent(limits),
          Routed<Submit>{kRouter, submit},
          Routed<Submit>{kRouter, {.attempt = AttemptId{8}, .key = {"", "b"}}},
          Routed<Suspend>{kRouter, {AttemptId{8}, {"", "b"}}},
          Routed<Close>{kOtherRouter, {{"", "b"}, 0, 2, FinishReason::kStopString}},
          StepDone{kGroup, result},
          Tick{},
          RouterLost{kOtherRouter},
          GroupLost{kGroup, EpochId{1}},
          TenantsChanged{{.prefill_cost = 3,
                          .decode_cost = 5,
                          .defaults = {.weight = 7, .queued_max = 2},
                          .tenants = {{"a",
                                       {.weight = 2,
                                        .running_max = 3,
                                        .queued_max = 4,
                                        .queued_tokens_max = 5,
                                        .tokens_per_minute = 6}}}}}};
}

struct Small {
  std::string bytes;
  std::vector<int64_t> ends;  // The ends of the header and of each event.
};

Small SmallRecording() {
  Small small;
  small.bytes = EncodeHeader({"build", {}});
  small.ends.push_back(std::ssize(small.bytes));
  TimeUs now = 100;
  for (const Event& event : EachKind()) {
    EXPECT_TRUE(EncodeEvent(event, now += 10, &small.bytes).ok());
    small.ends.push_back(std::ssize(small.bytes));
  }
  return small;
}

TEST(Recorder, EachKindOfEventComesBackAsItWas) {
  const std::vector<Event> events = EachKind();
  const ReadBack back = ReadRecording(SmallRecording().bytes);
  ASSERT_TRUE(back.status.ok()) << ToString(back.status);
  ASSERT_EQ(back.events.size(), events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(back.events[i].event.index(), events[i].index());
    EXPECT_EQ(back.events[i].time_us, 110 + 10 * static_cast<TimeUs>(i));
  }
  const auto& up = std::get<GroupUp>(back.events[0].event);
  EXPECT_EQ(up.kind, KindOf("kind"));
  EXPECT_EQ(up.limits.mixed_step_tokens, 5);
  EXPECT_EQ(up.limits.lanes, 2);
  EXPECT_EQ(up.limits.protocol, kProtocol2);
  EXPECT_EQ(up.limits.draft_max, 3);
  EXPECT_EQ(up.limits.blocks, CoreHarness::Limits().blocks);
  for (const size_t i : {1, 2}) {
    EXPECT_EQ(std::get<Routed<Submit>>(back.events[i].event).message,
              std::get<Routed<Submit>>(events[i]).message);
  }
  EXPECT_EQ(std::get<Routed<Suspend>>(back.events[3].event).message,
            std::get<Routed<Suspend>>(events[3]).message);
  EXPECT_EQ(std::get<Routed<Close>>(back.events[4].event).message,
            std::get<Routed<Close>>(events[4]).message);
  EXPECT_EQ(std::get<Routed<Close>>(back.events[4].event).router, kOtherRouter);
  EXPECT_EQ(std::get<StepDone>(back.events[5].event).result, std::get<StepDone>(events[5]).result);
  EXPECT_EQ(std::get<RouterLost>(back.events[7].event).router, kOtherRouter);
  EXPECT_EQ(std::get<GroupLost>(back.events[8].event).epoch, EpochId{1});
  EXPECT_EQ(std::get<TenantsChanged>(back.events[9].event).table,
            std::get<TenantsChanged>(events[9]).table);
}

TEST(Recorder, OptionsComeBackAsTheyWere) {
  const CoreOptions options{.policy = "shortest-prompt",
                            .waiting_requests_max = 1,
                            .waiting_tokens_max = 2,
                            .session_memory_bytes_max = 3,
                            .record_keep_us = 4,
                            .router_grace_us = 5,
                            .model_wait_us = 6,
                            .run_ahead_max = 7,
                            .sequences_max = 8,
                            .prefix_caching = false,
                            .prefixes_across_tenants = true,
                            .overtakes_max = 9};
  const ReadBack back = ReadRecording(EncodeHeader({"the build", options}));
  ASSERT_TRUE(back.status.ok()) << ToString(back.status);
  EXPECT_EQ(back.header->build, "the build");
  const CoreOptions& read = back.header->options;
  EXPECT_EQ(read.policy, options.policy);
  EXPECT_EQ(read.waiting_requests_max, 1);
  EXPECT_EQ(read.waiting_tokens_max, 2);
  EXPECT_EQ(read.session_memory_bytes_max, 3);
  EXPECT_EQ(read.record_keep_us, 4);
  EXPECT_EQ(read.router_grace_us, 5);
  EXPECT_EQ(read.model_wait_us, 6);
  EXPECT_EQ(read.run_ahead_max, 7);
  EXPECT_EQ(read.sequences_max, 8);
  EXPECT_EQ(read.overtakes_max, 9);
  EXPECT_FALSE(read.prefix_caching);
  EXPECT_TRUE(read.prefixes_across_tenants);
}

TEST(Recorder, AFileThatWasCutOffIsReadUpToItsLastWholeRecord) {
  const Small small = SmallRecording();
  for (int64_t size = 0; size <= std::ssize(small.bytes); ++size) {
    SCOPED_TRACE(size);
    const ReadBack back = ReadRecording(small.bytes.substr(0, static_cast<size_t>(size)));
    if (size < small.ends[0]) {
      EXPECT_EQ(back.status.code(), absl::StatusCode::kDataLoss);
      EXPECT_NE(Message(back.status).find("ends within its header"), std::string_view::npos);
      continue;
    }
    ASSERT_TRUE(back.status.ok()) << ToString(back.status);
    size_t whole = 0;
    while (whole + 1 < small.ends.size() && small.ends[whole + 1] <= size) ++whole;
    EXPECT_EQ(back.events.size(), whole);
    EXPECT_EQ(back.offset, small.ends[whole]);
    EXPECT_EQ(back.cut_bytes, size - small.ends[whole]);
  }
}

TEST(Recorder, AFlippedByteIsRefusedWithItsRecordsOffset) {
  const Small small = SmallRecording();
  for (size_t at = 0; at < small.bytes.size(); ++at) {
    for (const int mask : {0x01, 0x80}) {
      SCOPED_TRACE(fmt::format("byte {} mask {}", at, mask));
      std::string bytes = small.bytes;
      bytes[at] = static_cast<char>(bytes[at] ^ mask);
      const ReadBack back = ReadRecording(bytes);
      if (at < 8) {
        EXPECT_EQ(back.status.code(), absl::StatusCode::kInvalidArgument);
        continue;
      }
      EXPECT_EQ(back.status.code(), absl::StatusCode::kDataLoss);
      int64_t begin = 8;
      for (const int64_t end : small.ends) {
        if (end <= static_cast<int64_t>(at)) begin = end;
      }
      EXPECT_NE(Message(back.status).find(fmt::format("at offset {}:", begin)),
                std::string_view::npos)
          << ToString(back.status);
    }
  }
}

TEST(Recorder, TimeThatGoesBackIsRefused) {
  std::string bytes = EncodeHeader({"build", {}});
  ASSERT_TRUE(EncodeEvent(Tick{}, 20, &bytes).ok());
  ASSERT_TRUE(EncodeEvent(Tick{}, 19, &bytes).ok());
  const ReadBack back = ReadRecording(bytes);
  EXPECT_EQ(back.events.size(), 1u);
  EXPECT_EQ(back.status.code(), absl::StatusCode::kDataLoss);
}

TEST(Recorder, APolicyThatThisBuildDoesNotKnowIsRefused) {
  const ReadBack back = ReadRecording(EncodeHeader({"build 7", {.policy = "astrology"}}));
  EXPECT_EQ(back.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(back.status).find("build 7"), std::string_view::npos);
}

// ---- The file, and the driver that writes it

class RecorderFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + fmt::format("recorder-{}", getpid());
    std::filesystem::create_directories(folder_);
    path_ = folder_ + "/events";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_, path_;
};

TEST_F(RecorderFile, IsItsOwnersAloneAndTheOneBeforeIsKept) {
  for (int life = 0; life < 2; ++life) {
    auto recorder = FileRecorder::Create(path_, {"build", {}});
    ASSERT_TRUE(recorder.ok()) << ToString(recorder.status());
    for (int i = 0; i <= life; ++i) (*recorder)->Record(Tick{}, i);
  }
  struct stat info = {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(ReadRecording(BytesOfFile(path_)).events.size(), 2u);
  EXPECT_EQ(ReadRecording(BytesOfFile(path_ + ".1")).events.size(), 1u);
}

// The core may end the process at an event, and the file must have that event.
TEST_F(RecorderFile, AnEventIsInTheFileBeforeTheCoreHasIt) {
  auto recorder = FileRecorder::Create(path_, {"build", {}});
  ASSERT_TRUE(recorder.ok());
  for (size_t events = 1; events <= 3; ++events) {
    (*recorder)->Record(Tick{}, static_cast<TimeUs>(events));
    EXPECT_EQ(ReadRecording(BytesOfFile(path_)).events.size(), events);
  }
}

// Like a full disk, the limit of a file's size cuts one write and refuses the next.
TEST_F(RecorderFile, AFullDiskEndsTheRecordingAndNothingElse) {
  auto recorder = FileRecorder::Create(path_, {"build", {}});
  ASSERT_TRUE(recorder.ok());
  (*recorder)->Record(Tick{}, 1);
  const auto whole = static_cast<rlim_t>(std::filesystem::file_size(path_));
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight = {whole + 5, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  for (TimeUs now = 2; now < 5; ++now) (*recorder)->Record(Tick{}, now);
  (*recorder)->Record(Tick{}, 5);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  (*recorder)->Record(Tick{}, 6);
  EXPECT_EQ((*recorder)->recorded(), 1u);
  EXPECT_EQ((*recorder)->unrecorded(), 5u);
  const ReadBack back = ReadRecording(BytesOfFile(path_));
  EXPECT_TRUE(back.status.ok()) << ToString(back.status);
  EXPECT_EQ(back.events.size(), 1u);
  EXPECT_EQ(back.cut_bytes, 0);
}

// A scheduler that starts again while the disk is full runs, and the recording of the life before
// stays in its place.
TEST_F(RecorderFile, AFullDiskAtTheStartCostsNoOlderRecording) {
  for (int life = 0; life < 2; ++life) {
    auto recorder = FileRecorder::Create(path_, {"build", {}});
    ASSERT_TRUE(recorder.ok());
    (*recorder)->Record(Tick{}, life);
  }
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight = {5, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  auto recorder = FileRecorder::Create(path_, {"build", {}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  ASSERT_TRUE(recorder.ok()) << ToString(recorder.status());
  (*recorder)->Record(Tick{}, 5);
  EXPECT_EQ((*recorder)->recorded(), 0u);
  EXPECT_EQ((*recorder)->unrecorded(), 1u);
  for (const char* suffix : {"", ".1"}) {
    EXPECT_EQ(ReadRecording(BytesOfFile(path_ + suffix)).events.size(), 1u) << suffix;
  }
  EXPECT_FALSE(std::filesystem::exists(path_ + ".new"));
}

TEST_F(RecorderFile, APathThatCannotBeMadeIsNamed) {
  const auto recorder = FileRecorder::Create(folder_ + "/no/such", {"build", {}});
  EXPECT_EQ(recorder.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(recorder.status()).find("/no/such"), std::string_view::npos);
}

TEST_F(RecorderFile, WhatIsNoFileIsLeftAlone) {
  const auto recorder = FileRecorder::Create(folder_, {"build", {}});
  EXPECT_EQ(recorder.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::is_directory(folder_));
}

TEST_F(RecorderFile, ADriverTellsEveryEventOfItsCore) {
  auto recorder = FileRecorder::Create(path_, {"build", {}});
  ASSERT_TRUE(recorder.ok());
  ManualClock clock;
  FakeTransport transport{&clock};
  const std::unique_ptr<TermStore> terms = MakeMemoryTermStore();
  Metrics metrics("scheduler");
  DriverMetrics driver_metrics(&metrics);
  Driver driver({.process_id = "scheduler", .build = "test"}, *terms->Take(TermId{0}), &clock,
                &transport, terms.get(), &driver_metrics, recorder->get());
  FakeRouter router(&transport);
  FakeWorker first(&transport, "first", 1, 0);
  const auto settle = [&](FakeWorker* worker) {
    for (bool busy = true; busy;) {
      busy = worker->TakeControl() || worker->TakePlan() || router.Take();
      for (; !transport.idle(); busy = true) driver.RunOnce();
    }
  };
  settle(&first);
  const Record record = MakeRecord("r", 9, 5);
  router.Submit(record, 7);
  settle(&first);
  EXPECT_EQ(router.ids(7), Expected(record));
  first.Die();
  FakeWorker second(&transport, "second", 1, 0);
  settle(&second);
  driver.RunOnce();  // No event waits, so the metrics are updated.
  EXPECT_NE(metrics.Text().find(fmt::format("fathom_scheduler_events_recorded_total {}\n",
                                            (*recorder)->recorded())),
            std::string::npos);

  const ReadBack back = ReadRecording(BytesOfFile(path_));
  ASSERT_TRUE(back.status.ok()) << ToString(back.status);
  Replay replay(back.header->options);
  for (const RecordedEvent& recorded : back.events) {
    const absl::Status status = replay.Step(recorded.event, recorded.time_us);
    ASSERT_TRUE(status.ok()) << ToString(status);
  }
  const auto count = [&](const std::string& name) {
    for (size_t kind = 0; kind < replay.by_kind().size(); ++kind) {
      if (EventName(kind) == name) return replay.by_kind()[kind];
    }
    return int64_t{-1};
  };
  EXPECT_EQ(count("Submit"), 1);
  EXPECT_EQ(count("GroupUp"), 2);
  EXPECT_EQ(count("GroupLost"), 1);
  EXPECT_GE(count("StepDone"), 5);
  EXPECT_EQ(replay.actions().accepted, 1);
  EXPECT_EQ(replay.actions().refused, 0);
}

}  // namespace
}  // namespace fathom::scheduler
