// Variants of a model that the published test data does not have. They are rewritten copies of a
// bundled model, and their logits have the same bits. Another test compares the memory of a decoder
// with the planned memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/status.h"
#include "kernels/cpu/thread_pool.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"
#include "tests/worker/decoder_rig.h"
#include "worker/comm/comm.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"

namespace fathom::worker {
namespace {

using testing::ModelFiles;
using testing::TempFolder;

constexpr DecoderLimits kLimits = {.step_tokens = 16, .logits_rows = 16, .context_tokens = 64};
constexpr int32_t kBlockTokens = 16;
constexpr int32_t kPoolBlocks = 6;  // They hold 80 tokens, more than the context.

ModelFiles Draft() { return testing::ReadModel(testing::BundledModel("fathom-tiny-draft")); }

// A decoder and everything that it needs, for the model of a folder.
struct Loaded {
  explicit Loaded(const std::filesystem::path& folder, const DecoderLimits& limits = kLimits)
      : config(*ReadModelConfig(folder)),
        checkpoint(*OpenCheckpoint(folder, config)),
        model(RankOf(SpecOf(config))),
        kv(*KvCache::Allocate(KvShapeOf(model, kBlockTokens, kPoolBlocks))),
        decoder(*Decoder::Load(model, *checkpoint, limits, kv.get(), &comm, &pool)) {}
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
  RankModel model;
  std::unique_ptr<KvCache> kv;
  SingleRankComm comm;
  kernels::ThreadPool pool{1};
  std::unique_ptr<Decoder> decoder;
};

// Logits of each position of a fixed prompt.
std::vector<float> Logits(const ModelFiles& model, const DecoderLimits& limits = kLimits) {
  const TempFolder folder;
  testing::WriteModel(folder.path(), model);
  Loaded loaded(folder.path(), limits);
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

// Norms and biases in fp32, beside matrices in bf16, give the bits of the bf16 values from which
// they were made.
TEST(Variants, VectorsInFloat32AreTheBfloat16TheyCameFrom) {
  const auto with_vectors = [](ModelFiles model, std::initializer_list<StoredType> types) {
    size_t next = 0;
    for (testing::StoredTensor& tensor : model.tensors) {
      if (tensor.shape.size() > 1) continue;
      const StoredType type = types.begin()[next++ % types.size()];
      tensor.bytes = testing::FromFloats(type, testing::ToFloats(tensor.dtype, tensor.bytes));
      tensor.dtype = StoredTypeName(type);
    }
    return model;
  };
  const std::vector<float> expected = Logits(Draft());
  EXPECT_EQ(Logits(with_vectors(Draft(), {StoredType::kF32})), expected);
  EXPECT_EQ(Logits(with_vectors(Draft(), {StoredType::kF32, StoredType::kBf16})), expected);
}

TEST(Variants, TiedIsAHeadEqualToTheEmbedding) {
  ModelFiles copied = Draft();
  copied.Tensor("lm_head.weight").bytes = copied.Tensor("model.embed_tokens.weight").bytes;
  ModelFiles tied = copied;
  Tie(tied);
  EXPECT_EQ(Logits(tied), Logits(copied));
  EXPECT_NE(Logits(tied), Logits(Draft()));
}

// The logits of a prompt from `tp` ranks, each a thread; every rank has the same logits.
std::vector<float> LogitsOfRanks(const ModelFiles& model, int tp) {
  const TempFolder folder;
  testing::WriteModel(folder.path(), model);
  std::vector<std::vector<float>> logits(static_cast<size_t>(tp));
  RunRanks(folder.path(), {.tp = tp}, [&](Rank& rank) {
    Sequence sequence(1, 1);
    const std::vector<TokenId> ids = {0, 17, 300, 5, 5, 99};
    logits[static_cast<size_t>(rank.comm->rank())] = Feed(rank, sequence, ids);
  });
  for (const auto& other : logits) EXPECT_EQ(other, logits.front());
  return logits.front();
}

// The model without the last rows of its vocabulary.
ModelFiles Cut(ModelFiles model, int64_t vocab) {
  for (testing::StoredTensor& tensor : model.tensors) {
    if (tensor.name != "model.embed_tokens.weight" && tensor.name != "lm_head.weight") continue;
    const size_t row_bytes = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
    tensor.shape[0] = vocab;
    tensor.bytes.resize(static_cast<size_t>(vocab) * row_bytes);
  }
  model.config = testing::WithKey(model.config, "vocab_size", std::to_string(vocab));
  return model;
}

// A vocabulary that the ranks cannot share equally: each id has the bits that it has with the whole
// vocabulary, and there are no other ids.
TEST(Variants, VocabulariesThatRanksDoNotDivide) {
  constexpr size_t kWhole = 4096, kPositions = 6;
  const ModelFiles tiny = testing::ReadModel(testing::BundledModel("fathom-tiny"));
  ModelFiles tied = Draft();
  Tie(tied);
  const std::pair<const ModelFiles*, int> kCases[] = {{&tiny, 4}, {&tied, 2}};
  for (const auto& [model, tp] : kCases) {
    const std::vector<float> whole = LogitsOfRanks(*model, tp);
    ASSERT_EQ(whole.size(), kPositions * kWhole);
    for (const size_t vocab : {size_t{4095}, size_t{4093}, size_t{513}}) {
      const std::vector<float> cut = LogitsOfRanks(Cut(*model, static_cast<int64_t>(vocab)), tp);
      ASSERT_EQ(cut.size(), kPositions * vocab);
      for (size_t i = 0; i < kPositions; ++i) {
        EXPECT_TRUE(std::equal(cut.begin() + static_cast<std::ptrdiff_t>(i * vocab),
                               cut.begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab),
                               whole.begin() + static_cast<std::ptrdiff_t>(i * kWhole)))
            << "position " << i << " of vocabulary " << vocab << ", tp " << tp;
      }
    }
  }
}

// The pool can hold the whole first context, and only a small part of the second one.
TEST(Variants, DecoderTakesWhatThePlanSays) {
  // Its matrices have whole tiles of rows, so that little of it is padding.
  std::string config = testing::WithKey(testing::SmallArcee(1).config, "intermediate_size", "64");
  config = testing::WithKey(config, "vocab_size", "64");
  const TempFolder ungated;
  testing::WriteModel(ungated.path(), testing::RandomModel(config, 1));
  for (const auto& folder : {testing::BundledModel("fathom-tiny"),
                             testing::BundledModel("fathom-tiny-draft"), ungated.path()}) {
    for (const int32_t context : {kLimits.context_tokens, 1 << 24}) {
      DecoderLimits limits = kLimits;
      limits.context_tokens = context;
      const Loaded loaded(folder, limits);
      MemoryRequest request;
      request.stored_type = loaded.checkpoint->stored_type();
      request.step_tokens = limits.step_tokens;
      request.logits_rows = limits.logits_rows;
      request.context_tokens = limits.context_tokens;
      request.kv_cache_bytes =
          static_cast<int64_t>(kPoolBlocks * KvCache::BytesPerBlock(loaded.kv->shape()));
      const auto plan = PlanMemory(SpecOf(loaded.config), request);
      ASSERT_TRUE(plan.ok()) << ToString(plan.status());
      EXPECT_EQ(plan->blocks, kPoolBlocks);
      EXPECT_EQ(plan->activation_bytes, static_cast<int64_t>(loaded.decoder->work_bytes()));
      const auto weights = static_cast<int64_t>(loaded.decoder->weight_bytes());
      EXPECT_LE(plan->weights_bytes, weights);
      EXPECT_LE(weights, plan->weights_bytes + plan->weights_bytes / 100);  // Padding.
      EXPECT_EQ(plan->kv_bytes_per_block * kPoolBlocks, request.kv_cache_bytes);
    }
  }
}

// With a context of millions of tokens, the rotary tables have only the positions that the pool can
// hold. No bit changes, and no row reads beyond the tables, even if a block table is wrong.
TEST(Variants, RotaryTablesEndWithThePool) {
  DecoderLimits millions = kLimits;
  millions.context_tokens = 10'485'760;
  EXPECT_EQ(Logits(Draft(), millions), Logits(Draft()));
  const Loaded loaded(testing::BundledModel("fathom-tiny-draft"), millions);
  const Loaded small(testing::BundledModel("fathom-tiny-draft"));
  const int64_t pool_tokens = (kPoolBlocks - 1) * kBlockTokens;
  EXPECT_EQ(static_cast<int64_t>(loaded.decoder->work_bytes() - small.decoder->work_bytes()),
            (pool_tokens - kLimits.context_tokens) * loaded.config.head_dim * 4);
  const std::vector<BlockId> twice(2 * kPoolBlocks, BlockId{1});
  const std::span<const BlockId> tables[] = {twice};
  const auto code = [&](int32_t position) {
    const ForwardRow row{.token = 5, .position = position, .sequence = 0, .logits = true};
    return loaded.decoder->Forward({std::span(&row, 1), tables}).status().code();
  };
  EXPECT_EQ(code(static_cast<int32_t>(pool_tokens)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(code(static_cast<int32_t>(pool_tokens) - 1), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace fathom::worker
