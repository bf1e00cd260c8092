// Which group takes which waiting sequence. The test makes the groups and the queue without a core.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "scheduler/core/placement.h"
#include "scheduler/sessions/session_table.h"

namespace fathom::scheduler {
namespace {

class PlacementTest : public testing::Test {
 protected:
  Group& Add(int32_t id, int32_t blocks, const std::string& fingerprint = "kind") {
    const GroupUp up{GroupId{id},
                     TermId{1},
                     EpochId{1},
                     {.blocks = blocks,
                      .block_tokens = 4,
                      .slots = 8,
                      .step_tokens = 8,
                      .context_tokens = 100,
                      .plans_in_flight = 2},
                     fingerprint,
                     {}};
    placement_.GroupUp(up.limits);
    return *groups_.emplace(up.group, std::make_unique<Group>(up)).first->second;
  }
  Sequence& Wait(int32_t prompt_tokens, const std::string& fingerprint = "") {
    Sequence& sequence = sessions_.Create(RecordOf(prompt_tokens), "").sequences[0];
    queue_.Push(sequence, {0, 0, sequence.number}, {fingerprint, fingerprint}, true, 0);
    return sequence;
  }
  Record RecordOf(int32_t prompt_tokens) {
    Record record;
    record.key.request_id = std::to_string(++made_);
    record.prompt_ids.assign(static_cast<size_t>(prompt_tokens), 1);
    record.request.stop.max_tokens = 1;
    return record;
  }
  void Run(Group& group, int32_t sequences) {
    for (int32_t i = 0; i < sequences; ++i) {
      Sequence& sequence = sessions_.Create(RecordOf(1), "").sequences[0];
      group.running.Insert(OrderKey{0, 0, sequence.number}, &sequence);
      ++group.lane_sizes[0];
    }
  }

  Sequence* Next(const Group& group, int32_t lane, int32_t overtakes_max = 0) {
    return placement_.NextFor(group, {.lane = lane, .overtakes_max = overtakes_max}).sequence;
  }

  SessionTable sessions_;
  WaitQueue queue_{1'000'000};
  Groups groups_;
  const SequencePrefixes prefixes_{{}};
  const TenantTable tenants_;
  TenantShares shares_{&tenants_, true};
  Placement placement_{groups_, queue_, prefixes_, shares_};
  int made_ = 0;
};

TEST_F(PlacementTest, TheGroupWithTheFewestSequencesChoosesFirst) {
  Group &a = Add(0, 9), &b = Add(1, 9), &c = Add(2, 9), &full = Add(3, 9);
  Run(a, 2);
  Run(c, 1);
  full.in_flight.resize(2);
  EXPECT_EQ(placement_.GroupsInTurn(), (std::vector<Group*>{&b, &c, &a}));
}

TEST_F(PlacementTest, TheFirstThatFitsIsTakenOrNone) {
  Group& small = Add(0, 3);  // 8 tokens.
  Group& large = Add(1, 9);  // 32 tokens.
  EXPECT_EQ(Next(small, 0), nullptr);
  Sequence& longer = Wait(20);
  Sequence& shorter = Wait(8);
  EXPECT_EQ(Next(large, 0), &longer);
  EXPECT_EQ(Next(small, 0), &shorter);  // It has not the size for the first one.
  // Without room for the first one the next one does not overtake it.
  ASSERT_TRUE(large.kv.Reserve(16).has_value());
  EXPECT_EQ(Next(large, 0), nullptr);
  small.free_slots.clear();
  EXPECT_EQ(Next(small, 0), nullptr);
}

TEST_F(PlacementTest, SequencesWithoutRoomAreOvertakenSoOftenOnly) {
  Group& group = Add(0, 9);
  Sequence& lengthy = Wait(28);
  Sequence& broad = Wait(24);
  Sequence& brief = Wait(4);
  ASSERT_TRUE(group.kv.Reserve(16).has_value());
  Placement::Choice choice = placement_.NextFor(group, {.overtakes_max = 3});
  EXPECT_EQ(choice.sequence, &brief);
  EXPECT_EQ(choice.overtaken, (std::vector<Sequence*>{&lengthy, &broad}));
  std::get<WaitingState>(broad.state).overtakes = 3;
  EXPECT_EQ(Next(group, 0, 3), nullptr);
  EXPECT_EQ(Next(group, 0, 4), &brief);
  lengthy.seated_before = true;  // What was preempted is not overtaken.
  EXPECT_EQ(Next(group, 0, 100), nullptr);
}

TEST_F(PlacementTest, TokensOfOneKindStayWithIt) {
  Group &a = Add(0, 9, "a"), &b = Add(1, 9, "b");
  Sequence& of_b = Wait(4, "b");
  EXPECT_EQ(Next(a, 0), nullptr);
  EXPECT_EQ(Next(b, 0), &of_b);
}

TEST_F(PlacementTest, ARequestFitsSomeGroupOrTheMessageSaysWhatWould) {
  EXPECT_TRUE(placement_.CheckFits(RecordOf(1000)).ok());  // No group ever came up.
  Add(0, 3);
  EXPECT_FALSE(placement_.CheckFits(RecordOf(20)).ok());
  Add(1, 9);
  EXPECT_TRUE(placement_.CheckFits(RecordOf(20)).ok());
  groups_.clear();
  EXPECT_TRUE(placement_.CheckFits(RecordOf(20)).ok());  // As the last one.
  const absl::Status status = placement_.CheckFits(RecordOf(33));
  EXPECT_NE(Message(status).find("shorten the prompt to 32 tokens"), std::string::npos)
      << ToString(status);
}

}  // namespace
}  // namespace fathom::scheduler
