// The last events of the core, which a scheduler writes when it ends by a failed check.
#include "scheduler/recorder/event_ring.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "common/check.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

std::string Dumped(const EventRing& ring) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  ring.Dump(ends[1]);
  close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t bytes = 0; (bytes = read(ends[0], piece, sizeof(piece))) > 0;) {
    text.append(piece, static_cast<size_t>(bytes));
  }
  close(ends[0]);
  return text;
}

TEST(EventRing, HasALineForEachKindOfEventAndNoToken) {
  EventRing ring;
  Record record = MakeRecord("the-request", 3, 4);
  record.prompt_ids = {987'654, 987'655, 987'656};
  CoreHarness harness;
  TimeUs now = 100;
  const auto note = [&](const Event& event) { ring.Note(event, now++); };
  note(harness.UpEvent(CoreHarness::Limits()));
  note(CoreHarness::SubmitEvent(record, 7));
  note(CoreHarness::KeyOnly(record.key, 8));
  StepResult result{.epoch = EpochId{1}, .step = StepId{41}};
  result.rows = {{.ids = {987'657}}, {.fault = RowFault::kNonFiniteLogits}};
  note(StepDone{kGroup, result});
  note(Routed<Close>{kRouter, {record.key, 0, 2, FinishReason::kStopString}});
  note(Routed<Suspend>{kRouter, {AttemptId{8}, record.key}});
  note(RouterLost{kRouter});
  note(GroupLost{kGroup, EpochId{1}});
  note(Tick{});
  EXPECT_EQ(Dumped(ring),
            "the last events of the scheduler core:\n"
            "  event 0 at 100 us: group 0 is up: term 1, epoch 1, 33 blocks, 8 slots, 16 step "
            "tokens\n"
            "  event 1 at 101 us: router 1 submits the-request, attempt 7: prompt 3, max_tokens 4, "
            "0 generated\n"
            "  event 2 at 102 us: router 1 submits the key the-request, attempt 8\n"
            "  event 3 at 103 us: group 0 did step 41: epoch 1, 2 rows, 1 faults\n"
            "  event 4 at 104 us: router 1 closes the-request, sequence 0 at 2\n"
            "  event 5 at 105 us: router 1 suspends the-request, attempt 8\n"
            "  event 6 at 106 us: router 1 is lost\n"
            "  event 7 at 107 us: group 0 is lost: epoch 1\n"
            "  event 8 at 108 us: tick\n");
}

TEST(EventRing, KeepsTheLastOnesAndCutsLongLines) {
  EventRing ring;
  const Record record = MakeRecord(std::string(5000, 'x'), 3, 4);
  for (uint64_t i = 0; i < 3 * EventRing::kEvents; ++i) {
    ring.Note(CoreHarness::SubmitEvent(record, i), INT64_MAX);
  }
  const std::string text = Dumped(ring);
  EXPECT_EQ(std::ranges::count(text, '\n'), static_cast<std::ptrdiff_t>(EventRing::kEvents));
  EXPECT_EQ(text.find("event 512 "), std::string::npos);  // Perhaps being written.
  EXPECT_NE(text.find("event 513 "), std::string::npos);
  EXPECT_NE(text.find("event 767 "), std::string::npos);
  EXPECT_LE(text.size(), EventRing::kEvents * 160);
}

TEST(EventRingDeathTest, AFailedCheckWritesIt) {
  const auto ring = std::make_unique<EventRing>();
  ring->Note(RouterLost{PeerId{99}}, 5);
  ring->DumpOnFailedCheck();
  EXPECT_DEATH(FATHOM_CHECK(1 == 2, "the reason"),
               "check failed: 1 == 2: the reason\nthe last events of the scheduler core:\n"
               "  event 0 at 5 us: router 99 is lost\n");
  SetCheckFailedHook(nullptr, nullptr);
  EXPECT_DEATH(FATHOM_CHECK(1 == 2), "check failed: 1 == 2\n$");
}

}  // namespace
}  // namespace fathom::scheduler
