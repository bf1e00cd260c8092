// The CPU's decoder with a model whose layers differ: its logits equal those of a model of equal
// layers that computes the same function.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "kernels/dummy_weight.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/toy_spec.h"
#include "tests/worker/decoder_rig.h"
#include "worker/comm/epoch_comm.h"
#include "worker/progress.h"

namespace fathom::worker {
namespace {

constexpr int32_t kTokens = 20;  // More than a block has.
constexpr int32_t kHeads = 4;
constexpr int32_t kNarrow = 64, kWide = 96;

// fp32 values by tensor, row and column.
using Values = std::function<float(std::string_view, int64_t, int64_t)>;

class ToyCheckpoint final : public Checkpoint {
 public:
  explicit ToyCheckpoint(Values values) : values_(std::move(values)) {}
  StoredType stored_type() const override { return StoredType::kF32; }
  const std::string& weights_digest() const override { return digest_; }
  absl::StatusOr<HostTensor> Load(std::string_view name, const TensorSlice& slice) const override {
    HostTensor tensor(StoredType::kF32, slice.rows(), slice.cols());
    std::byte* next = tensor.data();
    for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
      for (int64_t col = slice.col_begin; col < slice.col_end; ++col, next += sizeof(float)) {
        const float value = values_(name, row, col);
        std::memcpy(next, &value, sizeof(value));
      }
    }
    return tensor;
  }

 private:
  const Values values_;
  const std::string digest_;
};

float Random(std::string_view name, int64_t row, int64_t col) {
  return 8 * kernels::DummyValue(std::hash<std::string_view>()(name), row * 1024 + col);
}

// Makes layer 1 as wide as layer 0: each of its two kv heads stands twice, and rows of zeros are
// added.
float Widened(std::string_view name, int64_t row, int64_t col) {
  if (name == "toy.1.k" || name == "toy.1.v") {
    const int64_t head = row / testing::kToyHeadDim, in_head = row % testing::kToyHeadDim;
    return Random(name, head / 2 * testing::kToyHeadDim + in_head, col);
  }
  if ((name == "toy.1.gate" || name == "toy.1.up") && row >= kNarrow) return 0;
  if (name == "toy.1.down" && col >= kNarrow) return 0;
  return Random(name, row, col);
}

ModelSpec Mixed() {
  return testing::ToySpec(
      {{.heads = kHeads, .kv_heads = 4, .width = kWide},
       {.heads = kHeads, .kv_heads = 2, .width = kNarrow, .has_extra_plane = true}});
}
ModelSpec Equal() {
  return testing::ToySpec({{.heads = kHeads, .kv_heads = 4, .width = kWide},
                           {.heads = kHeads, .kv_heads = 4, .width = kWide}});
}

// The logits of every position, from rank 0.
std::vector<float> LogitsOf(const ModelSpec& spec, const Values& values, int32_t tp, size_t chunk) {
  const ToyCheckpoint checkpoint(values);
  ThreadRanks ranks(tp);
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < kTokens; ++i) ids.push_back(i * 7 % testing::kToyVocab);
  std::vector<std::vector<float>> logits(static_cast<size_t>(tp));
  std::vector<std::thread> threads;
  for (int32_t index = 0; index < tp; ++index) {
    threads.emplace_back([&, index] {
      const RankModel model = RankOf(spec, {.tp = tp, .tp_rank = index});
      Rank rank;
      if (tp == 1) {
        rank.comm = std::make_unique<SingleRankComm>();
      } else {
        rank.comm = std::make_unique<ThreadComm>(&ranks, index, tp);
      }
      rank.pool = std::make_unique<kernels::ThreadPool>(1);
      rank.kv = KvCache::Allocate(KvShapeOf(model, 16, 8)).value();
      rank.decoder =
          Decoder::Load(model, checkpoint,
                        {.step_tokens = kTokens, .logits_rows = kTokens, .context_tokens = 64},
                        rank.kv.get(), rank.comm.get(), rank.pool.get())
              .value();
      Sequence sequence(1, 3);
      logits[static_cast<size_t>(index)] = FeedInChunks(rank, sequence, ids, chunk);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& of_rank : logits) EXPECT_EQ(of_rank, logits[0]);
  EXPECT_EQ(logits[0].size(), size_t{kTokens} * testing::kToyVocab);
  return logits[0];
}

TEST(MixedLayers, AreTheEqualLayersThatComputeTheSame) {
  const std::vector<float> mixed = LogitsOf(Mixed(), Random, 1, kTokens);
  EXPECT_EQ(mixed, LogitsOf(Equal(), Widened, 1, kTokens));
  EXPECT_NE(mixed, LogitsOf(Equal(), Random, 1, kTokens));
}

TEST(MixedLayers, ChunksChangeNoBitAndRanksChangeLittle) {
  const std::vector<float> one = LogitsOf(Mixed(), Random, 1, kTokens);
  for (const int32_t tp : {2, 4}) {
    const std::vector<float> whole = LogitsOf(Mixed(), Random, tp, kTokens);
    EXPECT_EQ(whole, LogitsOf(Mixed(), Random, tp, 3)) << tp;
    EXPECT_THAT(whole, ::testing::Pointwise(::testing::FloatNear(1e-3f), one)) << tp;
  }
}

// A comm of one of two ranks that notes what the rank does in each collective.
class NotingComm final : public Comm {
 public:
  explicit NotingComm(const Progress* progress) : progress_(*progress) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  absl::Status AllReduceSum(std::span<float>) override { return Note(); }
  absl::Status AllGather(std::span<const float>, std::span<float>) override { return Note(); }
  std::vector<RankWork> noted;

 private:
  absl::Status Note() {
    noted.push_back(progress_.Now().work);
    return absl::OkStatus();
  }
  const Progress& progress_;
};

TEST(MixedLayers, ProgressNamesTheLayerAndTheCollectiveInWork) {
  const ToyCheckpoint checkpoint(Random);
  Progress progress;
  NotingComm noting(&progress);
  RealClock clock;
  EpochComm comm(0, 2, &clock, &progress);
  comm.SetTarget(&noting);
  kernels::ThreadPool pool(1);
  const RankModel model = RankOf(Mixed(), {.tp = 2, .tp_rank = 0});
  auto kv = KvCache::Allocate(KvShapeOf(model, 16, 8)).value();
  auto decoder =
      Decoder::Load(model, checkpoint, {.step_tokens = 4, .logits_rows = 4, .context_tokens = 64},
                    kv.get(), &comm, &pool, &progress)
          .value();
  const std::vector<ForwardRow> rows = {{.token = 1, .logits = true}};
  const std::vector<BlockId> blocks = {BlockId{1}};
  const std::vector<std::span<const BlockId>> tables = {blocks};
  for (uint64_t step = 0; step < 2; ++step) {
    progress.BeginStep(StepId{step}, Activity::kPreparing);
    EXPECT_EQ(progress.Now().work, (RankWork{Activity::kPreparing, -1, 0}));
    noting.noted.clear();
    ASSERT_TRUE(decoder->Forward({.rows = rows, .block_tables = tables}).ok());
    EXPECT_EQ(noting.noted, (std::vector<RankWork>{{Activity::kAttention, 0, 1},
                                                   {Activity::kMlp, 0, 2},
                                                   {Activity::kAttention, 1, 3},
                                                   {Activity::kMlp, 1, 4},
                                                   {Activity::kHead, -1, 5}}));
    EXPECT_EQ(progress.Now().step, StepId{step});
    EXPECT_EQ(progress.Now().collectives, 5 * (step + 1));
  }
}

// Copying and zeroing affect the planes of every size, and no other block.
TEST(MixedLayers, BlocksOfEveryPlane) {
  const auto kv = KvCache::Allocate(KvShapeOf(RankOf(Mixed()), 16, 4)).value();
  const auto fill = [&](int32_t layer, int32_t plane, int32_t block) {
    const int64_t floats = kv->BlockFloats(layer, plane);
    return std::span<float>(kv->Plane(layer, plane) + block * floats, static_cast<size_t>(floats));
  };
  const std::vector<std::pair<int32_t, int32_t>> planes = {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {1, 2}};
  for (const auto& [layer, plane] : planes) {
    for (int32_t block = 0; block < 4; ++block) {
      for (float& value : fill(layer, plane, block)) {
        value = static_cast<float>(100 * layer + 10 * plane + block);
      }
    }
  }
  ASSERT_TRUE(kv->Copy(BlockId{1}, BlockId{3}).ok());
  ASSERT_TRUE(kv->Zero(BlockId{1}).ok());
  for (const auto& [layer, plane] : planes) {
    const auto base = static_cast<float>(100 * layer + 10 * plane);
    for (const auto& [block, value] :
         {std::pair{0, base}, std::pair{1, 0.0f}, std::pair{2, base + 2}, std::pair{3, base + 1}}) {
      EXPECT_THAT(fill(layer, plane, block), ::testing::Each(value)) << layer << " " << plane;
    }
  }
  EXPECT_EQ(kv->BlockFloats(1, 2), 2 * 16 * 4);
}

}  // namespace
}  // namespace fathom::worker
