#include "worker/cuda/step_builder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "worker/engine/engine.h"
#include "worker/engine/proposer.h"

namespace fathom::worker {
namespace {

using kernels::cuda::SampleRow;

constexpr EngineLimits kLimits{.context_tokens = 2048,
                               .block_tokens = 64,
                               .pool_blocks = 400,
                               .slots = 40,
                               .step_tokens = 512,
                               .vocab = 1000,
                               .draft_max = 4};
constexpr int32_t kLogitsRows = 64;

// A device that builds the inputs of each step and computes nothing.
class BuildingDevice final : public Device {
 public:
  int steps_in_flight() const override { return 1; }
  EpochComm* comm() override { return &comm_; }
  absl::Status Submit(const StepBatch& batch) override {
    std::fill(input.begin(), input.end(), std::byte{0xEE});
    builder_.Build(batch, input.data(), &step);
    outputs = batch.outputs;
    return absl::OkStatus();
  }
  Proposer* proposer() override { return &drafts_; }
  bool drafts_penalized() const override { return false; }
  StepOutputs Collect() override {
    outputs_.assign(static_cast<size_t>(outputs), {});
    return {.rows = outputs_};
  }
  std::string NonFiniteDetail(int32_t, int32_t) const override { return {}; }
  void Drain() override {}

  std::vector<std::byte> input = std::vector<std::byte>(CudaStepBytesMax(kLimits));
  BuiltStep step;
  int32_t outputs = 0;

 private:
  // Proposes as many drafts as it may: 900, 901, ...
  struct Drafts final : Proposer {
    absl::Status Propose(std::span<DraftWork> rows) override {
      for (DraftWork& row : rows) {
        for (int32_t i = 0; i < row.draft_max; ++i) row.drafts.push_back(900 + i);
      }
      return absl::OkStatus();
    }
  };

  Drafts drafts_;
  std::vector<RowOutput> outputs_;
  ManualClock clock_;
  Progress progress_;
  EpochComm comm_{0, 1, &clock_, &progress_};
  const StepBuilder builder_{kLimits, kLogitsRows, 4000, true};
};

// What the test knows about a sequence with a slot.
struct Seated {
  std::vector<TokenId> ids;
  int32_t prompt = 0;
  int32_t computed = 0;
  std::vector<BlockId> blocks;
  bool scored = false;
  std::optional<StepId> sampled_by;
};

// Makes random plans like a scheduler, and checks the builder's result for each.
class StepBuilderTest : public testing::Test {
 protected:
  int32_t Draw(int32_t least, int32_t most) {
    return least + static_cast<int32_t>(random_() % static_cast<uint32_t>(most - least + 1));
  }

  void AdmitOne(StepPlan* plan) {
    for (int32_t slot = 1; slot <= kLimits.slots; ++slot) {
      if (seated_.contains(slot)) continue;
      Seated& seated = seated_[slot];
      seated.prompt = Draw(1, 300);
      for (int32_t i = 0; i < seated.prompt; ++i) seated.ids.push_back(Draw(0, kLimits.vocab - 1));
      seated.scored = Draw(0, 4) == 0;
      Admit admit{.slot = {slot}, .seed = 7, .sequence = 0, .prompt_tokens = seated.prompt};
      admit.ids = seated.ids;
      if (seated.scored) admit.request.output.prompt_logprobs = 2;
      Extend extend{.slot = {slot}};
      for (int32_t i = 0; i < seated.prompt / 64 + 4; ++i) {
        seated.blocks.push_back({Draw(1, kLimits.pool_blocks - 1)});
        extend.block_ids.push_back(seated.blocks.back());
      }
      plan->admits.push_back(admit);
      plan->extends.push_back(extend);
      return;
    }
  }

  void AddChunks(StepPlan* plan) {
    int32_t left = kLimits.step_tokens;
    for (auto& [slot, seated] : seated_) {
      const bool decode = seated.sampled_by.has_value();
      const int32_t open = static_cast<int32_t>(seated.ids.size()) - seated.computed;
      const int32_t count = decode ? 1 : std::min(Draw(1, open), left);
      if (count == 0 || Draw(0, 5) == 0 ||
          seated.computed + count + 2 > static_cast<int32_t>(seated.blocks.size()) * 64) {
        continue;
      }
      Chunk chunk{.slot = {slot}};
      if (decode) {
        chunk.work = DecodeRow{*seated.sampled_by};
      } else {
        chunk.work = count;
      }
      chunk.sample = decode || count == open;
      plan->chunks.push_back(chunk);
      left -= count;
    }
  }

  void ExpectRows(const StepPlan& plan);
  void ExpectOutputs(const ChunkWork& chunk, const Seated& seated, bool sample);
  void ExpectPadding();

  std::mt19937 random_{3};
  std::map<int32_t, Seated> seated_;
  BuildingDevice device_;
  Engine engine_{&device_, {.limits = kLimits}};
  SubmittedStep submitted_;
};

template <class T>
const T* At(const std::byte* input, int64_t offset) {
  return reinterpret_cast<const T*>(input + offset);
}

void StepBuilderTest::ExpectRows(const StepPlan& plan) {
  const BuiltStep& step = device_.step;
  const std::byte* const input = device_.input.data();
  const CudaStepLayout& at = step.layout;
  ASSERT_EQ(submitted_.chunks.size(), plan.chunks.size());
  std::set<int32_t> rows_seen;
  // The first row of each sequence, by the sequence's row in the table of blocks.
  std::map<int32_t, int32_t> first_row;
  for (int32_t i = 0; i < step.shape.decode_rows; ++i) first_row[i] = i;
  for (const auto& chunk : step.chunks) {
    EXPECT_GE(chunk.rows, 2);
    first_row[chunk.table_row] = chunk.row_begin;
  }
  int32_t next_decode = 0, next_chunk = 0;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const int32_t slot = plan.chunks[i].slot.value;
    Seated& seated = seated_[slot];
    const bool fed = std::holds_alternative<DecodeRow>(plan.chunks[i].work);
    const int32_t count = fed ? 1 : std::get<int32_t>(plan.chunks[i].work);
    const int32_t table =
        count == 1 ? next_decode++ : step.chunks[static_cast<size_t>(next_chunk++)].table_row;
    const int32_t row0 = first_row.at(table);
    for (int32_t r = 0; r < count; ++r) {
      const int32_t position = seated.computed + r, row = row0 + r;
      EXPECT_TRUE(rows_seen.insert(row).second);
      EXPECT_EQ(At<int32_t>(input, at.positions)[row], position);
      EXPECT_EQ(At<int32_t>(input, at.tokens)[row],
                fed ? -1 - slot : seated.ids[static_cast<size_t>(position)]);
      EXPECT_EQ(At<int32_t>(input, at.kv_slots)[row],
                seated.blocks[static_cast<size_t>(position / 64)].value * 64 + position % 64);
      EXPECT_EQ(At<int32_t>(input, at.faults)[row], 0);
    }
    const int32_t* blocks = At<int32_t>(input, at.tables) + table * step.shape.table_stride;
    for (int32_t b = 0; b * 64 < seated.computed + count; ++b) {
      EXPECT_EQ(blocks[b], seated.blocks[static_cast<size_t>(b)].value);
    }
    EXPECT_TRUE(count > 1 || At<int32_t>(input, at.lengths)[row0] == seated.computed + 1);
    EXPECT_EQ(submitted_.chunks[i].first_row, row0);
    EXPECT_EQ(submitted_.chunks[i].count, count);
    ExpectOutputs(submitted_.chunks[i], seated, plan.chunks[i].sample);
    seated.computed += count;
    if (plan.chunks[i].sample) {
      seated.ids.push_back(0);
      seated.sampled_by = plan.step;
    }
  }
  EXPECT_EQ(std::ssize(rows_seen), step.live_rows);
  EXPECT_EQ(step.graphable, step.chunks.empty() && step.live_rows > 0 &&
                                step.shape.samples == step.shape.rows &&
                                step.shape.rows == step.shape.decode_rows);
  ExpectPadding();
}

void StepBuilderTest::ExpectOutputs(const ChunkWork& chunk, const Seated& seated, bool sample) {
  const std::byte* const input = device_.input.data();
  const CudaStepLayout& at = device_.step.layout;
  const auto* rows = At<SampleRow>(input, at.sample_rows);
  std::vector<int32_t> outputs;  // Indices of sample rows, in the order of the batch.
  for (int32_t i = 0; i < device_.step.shape.samples; ++i) {
    if (rows[i].logits_row >= 0) outputs.push_back(i);
  }
  const int32_t scores = chunk.outputs() - (sample ? 1 : 0);
  if (seated.scored) {
    EXPECT_EQ(scores, std::max(0, std::min(chunk.count, seated.prompt - 1 - seated.computed)));
  }
  for (int32_t s = 0; s < scores; ++s) {
    const SampleRow& row = rows[outputs.at(static_cast<size_t>(chunk.first_output + s))];
    EXPECT_EQ(row.target, seated.ids[static_cast<size_t>(chunk.start + 1 + s)]);
    EXPECT_EQ(row.fault_row, chunk.first_row + s);
    EXPECT_EQ(row.logprobs, 2);
  }
  if (!sample) return;
  const int32_t index = outputs.at(static_cast<size_t>(chunk.first_output + scores));
  EXPECT_EQ(At<int32_t>(input, at.gather)[index], chunk.first_row + chunk.count - 1);
  EXPECT_EQ(rows[index].logits_row, index % kLogitsRows);
  EXPECT_EQ(rows[index].slot, chunk.id.value);
  EXPECT_EQ(rows[index].position, static_cast<int32_t>(seated.ids.size()) - seated.prompt);
  EXPECT_EQ(rows[index].target, -1);
}

void StepBuilderTest::ExpectPadding() {
  const BuiltStep& step = device_.step;
  const std::byte* const input = device_.input.data();
  const CudaStepLayout& at = step.layout;
  for (int32_t row = step.live_rows; row < step.shape.rows; ++row) {
    EXPECT_EQ(At<int32_t>(input, at.lengths)[row], 0);
    EXPECT_EQ(At<int32_t>(input, at.kv_slots)[row], 0);
    EXPECT_EQ(At<int32_t>(input, at.segment_begin)[row], step.segments_sum);
    EXPECT_EQ(At<SampleRow>(input, at.sample_rows)[row].logits_row, -1);
  }
}

TEST_F(StepBuilderTest, RandomPlansBecomeTheirRows) {
  int32_t graphs = 0, mixed = 0;
  for (uint64_t turn = 0; turn < 400; ++turn) {
    StepPlan plan;
    plan.step = {turn};
    if (turn > 60 && turn % 3 == 0) {
      const int32_t slot = seated_.begin()->first;
      plan.releases.push_back({slot});
      seated_.erase(slot);
    }
    if (turn % 100 < 50) AdmitOne(&plan);
    AddChunks(&plan);
    const absl::Status submitted = engine_.Submit(plan, &submitted_);
    ASSERT_TRUE(submitted.ok()) << ToString(submitted);
    ExpectRows(plan);
    graphs += device_.step.graphable ? 1 : 0;
    mixed += device_.step.chunks.empty() ? 0 : 1;
  }
  EXPECT_GT(graphs, 20);
  EXPECT_GT(mixed, 20);
}

// A row with drafts becomes decode rows, each with the blocks of its sequence and its own length,
// so that a step of such rows has the shape of a decode step.
TEST_F(StepBuilderTest, DraftsAreDecodeRowsOfTheirOwn) {
  StepStream stream;
  const auto submit = [&](const StepPlan& plan) {
    const absl::Status submitted = engine_.Submit(plan, &submitted_);
    ASSERT_TRUE(submitted.ok()) << ToString(submitted);
    engine_.Collect(submitted_, &stream);
  };
  StepPlan plan;
  for (const auto& [slot, prompt] : {std::pair{1, 510}, {2, 20}}) {
    Admit admit{.slot = {slot}, .prompt_tokens = prompt};
    admit.ids.assign(static_cast<size_t>(prompt), TokenId{5});
    plan.admits.push_back(admit);
    Extend extend{.slot = {slot}};
    for (int32_t b = 0; b < 9; ++b) extend.block_ids.push_back({slot * 20 + b});
    plan.extends.push_back(extend);
  }
  plan.chunks = {{{1}, 510, true}};
  ASSERT_NO_FATAL_FAILURE(submit(plan));
  plan = StepPlan{.step = {1}};
  plan.chunks = {{{2}, 7, false}, {{1}, DecodeRow{{0}, 3}, true}};
  ASSERT_NO_FATAL_FAILURE(submit(plan));
  const BuiltStep& step = device_.step;
  const std::byte* const input = device_.input.data();
  EXPECT_EQ(step.shape.decode_rows, 4);
  EXPECT_EQ(step.shape.rows, 11);
  ASSERT_EQ(step.chunks.size(), 1u);
  EXPECT_EQ(step.chunks[0].row_begin, 4);
  EXPECT_EQ(step.chunks[0].table_row, 4);
  const int32_t tokens[] = {0, 900, 901, 902}, segments[] = {0, 1, 2, 4};
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(At<int32_t>(input, step.layout.tokens)[i], tokens[i]);
    EXPECT_EQ(At<int32_t>(input, step.layout.positions)[i], 510 + i);
    EXPECT_EQ(At<int32_t>(input, step.layout.lengths)[i], 511 + i);
    EXPECT_EQ(At<int32_t>(input, step.layout.segment_begin)[i], segments[i]);
    const int32_t* const blocks =
        At<int32_t>(input, step.layout.tables) + i * step.shape.table_stride;
    EXPECT_EQ(blocks[0], 20);
    EXPECT_EQ(blocks[7], 27);
    const SampleRow& row = At<SampleRow>(input, step.layout.sample_rows)[i];
    EXPECT_EQ(row.position, 1 + i);
    EXPECT_EQ(row.target, i == 0 ? -1 : kernels::cuda::kTargetDrafted);
    EXPECT_EQ(At<int32_t>(input, step.layout.gather)[i], i);
  }
  EXPECT_EQ(step.segments_sum, 6);
  // Alone it is a step for a graph. Its token is the host's: the device's own may be of a draft.
  plan = StepPlan{.step = {2}};
  plan.chunks = {{{1}, DecodeRow{{1}, 2}, true}};
  ASSERT_NO_FATAL_FAILURE(submit(plan));
  EXPECT_TRUE(step.graphable);
  EXPECT_EQ(step.live_rows, 3);
  EXPECT_EQ(At<int32_t>(input, step.layout.tokens)[0], 0);
  EXPECT_EQ(At<int32_t>(input, step.layout.positions)[0], 511);
}

TEST_F(StepBuilderTest, AFaultOfASequenceComputesNothingForIt) {
  StepPlan plan;
  Admit admit{.slot = {1}, .prompt_tokens = 2};
  admit.ids = {5, kLimits.vocab};
  plan.admits = {admit};
  plan.extends = {{{1}, {{3}}}};
  plan.chunks.push_back({{1}, 2, true});
  ASSERT_TRUE(engine_.Submit(plan, &submitted_).ok());
  EXPECT_EQ(device_.step.shape.rows, 0);
  ASSERT_EQ(submitted_.chunks.size(), 1u);
  EXPECT_EQ(submitted_.chunks[0].fault, RowFault::kTokenOutOfRange);
  EXPECT_EQ(submitted_.chunks[0].outputs(), 0);
}

}  // namespace
}  // namespace fathom::worker
