// Variants of a model that no published data here has, as rewritten copies of a bundled one: their
// logits have the same bits. And the memory that a decoder takes is what the plan says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"
#include "kernels/thread_pool.h"
#include "tests/worker/model_files.h"
#include "worker/checkpoint.h"
#include "worker/comm.h"
#include "worker/decoder.h"
#include "worker/kv_cache.h"
#include "worker/memory_plan.h"

namespace fathom::worker {
namespace {

using testing::ModelFiles;
using testing::TempFolder;

constexpr DecoderLimits kLimits = {.step_tokens = 16, .logits_rows = 16, .context_tokens = 64};

ModelFiles Draft() { return testing::ReadModel(testing::BundledModel("fathom-tiny-draft")); }

// One decoder with all that it needs, of a folder's model.
struct Loaded {
  explicit Loaded(const std::filesystem::path& folder)
      : config(*ReadModelConfig(folder)),
        checkpoint(*OpenCheckpoint(folder, config)),
        kv(*KvCache::Allocate(
            {config.layers, Decoder::KvHeadsOfRank(config, 1), config.head_dim, 16, 4})),
        decoder(*Decoder::Load(config, *checkpoint, ParallelPlace{}, kLimits, kv.get(), &comm,
                               &pool)) {}
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<KvCache> kv;
  SingleRankComm comm;
  kernels::ThreadPool pool{1};
  std::unique_ptr<Decoder> decoder;
};

// Logits of each position of a fixed prompt.
std::vector<float> Logits(const ModelFiles& model) {
  const TempFolder folder;
  testing::WriteModel(folder.path(), model);
  Loaded loaded(folder.path());
  std::vector<ForwardRow> rows;
  for (const TokenId token : {0, 17, 300, 4095, 5, 5, 1024, 999}) {
    rows.push_back({token, static_cast<int32_t>(rows.size()), 0, true});
  }
  const std::vector<BlockId> blocks = {BlockId{2}};
  const std::span<const BlockId> table = blocks;
  const auto logits = loaded.decoder->Forward({rows, {&table, 1}});
  EXPECT_TRUE(logits.ok()) << ToString(logits.status());
  return {logits->begin(), logits->end()};
}

TEST(Variants, Float32IsTheBfloat16ItCameFrom) {
  ModelFiles model = Draft();
  const std::vector<float> expected = Logits(model);
  ASSERT_EQ(expected.size(), 8u * 4096);
  Retype(model, StoredType::kF32);
  EXPECT_EQ(Logits(model), expected);
}

TEST(Variants, Float16IsTheFloat32OfItsValues) {
  ModelFiles half = Draft();
  Retype(half, StoredType::kF16);
  ModelFiles single = half;
  Retype(single, StoredType::kF32);
  EXPECT_EQ(Logits(half), Logits(single));
}

TEST(Variants, TiedIsAHeadEqualToTheEmbedding) {
  ModelFiles copied = Draft();
  copied.Tensor("lm_head.weight").bytes = copied.Tensor("model.embed_tokens.weight").bytes;
  ModelFiles tied = copied;
  Tie(tied);
  EXPECT_EQ(Logits(tied), Logits(copied));
  EXPECT_NE(Logits(tied), Logits(Draft()));
}

TEST(Variants, DecoderTakesWhatThePlanSays) {
  for (const char* name : {"fathom-tiny", "fathom-tiny-draft"}) {
    const Loaded loaded(testing::BundledModel(name));
    MemoryRequest request;
    request.step_tokens = kLimits.step_tokens;
    request.logits_rows = kLimits.logits_rows;
    request.context_tokens = kLimits.context_tokens;
    request.kv_cache_bytes = 1 << 30;
    const auto plan = PlanMemory(loaded.config, request);
    ASSERT_TRUE(plan.ok()) << ToString(plan.status());
    EXPECT_EQ(plan->activation_bytes, static_cast<int64_t>(loaded.decoder->work_bytes()));
    const auto weights = static_cast<int64_t>(loaded.decoder->weight_bytes());
    EXPECT_LE(plan->weights_bytes, weights);
    EXPECT_LE(weights, plan->weights_bytes + plan->weights_bytes / 100);  // Padding.
    EXPECT_EQ(plan->kv_bytes_per_block,
              static_cast<int64_t>(KvCache::BytesPerBlock(loaded.kv->shape())));
  }
}

}  // namespace
}  // namespace fathom::worker
