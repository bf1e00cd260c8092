#include "tests/worker/decoder_rig.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

void ThreadRanks::Meet() {
  std::unique_lock lock(mutex_);
  const int64_t round = round_;
  if (++waiting_ == size_) {
    waiting_ = 0;
    ++round_;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return round_ != round; });
}

std::span<const std::span<const float>> ThreadRanks::Share(int rank, std::span<const float> mine) {
  spans_[static_cast<size_t>(rank)] = mine;
  Meet();
  return spans_;
}

absl::Status ThreadComm::AllReduceSum(std::span<float> values) {
  const auto parts = ranks_->Share(rank_, values);
  std::vector<float> sum(parts[0].begin(), parts[0].end());
  for (const auto& part : parts.subspan(1)) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  ranks_->Meet();
  std::copy(sum.begin(), sum.end(), values.begin());
  return absl::OkStatus();
}

absl::Status ThreadComm::AllGather(std::span<const float> mine, std::span<float> all) {
  auto to = all.begin();
  for (const auto& part : ranks_->Share(rank_, mine)) {
    to = std::copy(part.begin(), part.end(), to);
  }
  ranks_->Meet();
  return absl::OkStatus();
}

Sequence::Sequence(int32_t first_block, int32_t blocks) {
  for (int32_t i = 0; i < blocks; ++i) table.push_back(BlockId{first_block + i});
}

absl::StatusOr<std::span<const float>> StagedDecoder::Forward(const ForwardBatch& batch) {
  absl::StatusOr<std::span<const float>> values = std::span<const float>();
  std::vector<ForwardRow> rows(batch.rows.begin(), batch.rows.end());
  for (Stage& stage : stages_) {
    values = stage.decoder->Forward({rows, batch.block_tables, *values});
    if (!values.ok()) return values;
    for (ForwardRow& row : rows) row.token = -1;  // A later stage reads none.
  }
  return values;
}

size_t StagedDecoder::weight_bytes() const {
  size_t bytes = 0;
  for (const Stage& stage : stages_) bytes += stage.decoder->weight_bytes();
  return bytes;
}

size_t StagedDecoder::work_bytes() const {
  size_t bytes = 0;
  for (const Stage& stage : stages_) bytes += stage.decoder->work_bytes();
  return bytes;
}

namespace {

constexpr int32_t kStepTokens = 1024;
constexpr int32_t kContextTokens = 2048;
constexpr int32_t kPoolTokens = 3 * kContextTokens;

std::unique_ptr<Rank> LoadRank(const std::filesystem::path& folder, const RigOptions& options,
                               int index, ThreadRanks* ranks) {
  auto config = ReadModelConfig(folder);
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  if (!config.ok()) return nullptr;
  auto checkpoint = OpenCheckpoint(folder, *config);
  EXPECT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  if (!checkpoint.ok()) return nullptr;

  auto rank = std::make_unique<Rank>();
  if (options.tp == 1) {
    rank->comm = std::make_unique<SingleRankComm>();
  } else {
    rank->comm = std::make_unique<ThreadComm>(ranks, index, options.tp);
  }
  rank->pool = std::make_unique<kernels::ThreadPool>(options.threads);
  std::vector<StagedDecoder::Stage> stages;
  for (int i = 0; i < options.stages; ++i) {
    const RankModel model =
        RankOf(SpecOf(*config),
               {.tp = options.tp, .tp_rank = index, .stage = i, .stages = options.stages});
    auto kv = KvCache::Allocate(
        KvShapeOf(model, options.block_tokens, kPoolTokens / options.block_tokens));
    EXPECT_TRUE(kv.ok()) << ToString(kv.status());
    if (!kv.ok()) return nullptr;
    StagedDecoder::Stage& stage = stages.emplace_back();
    stage.kv = *std::move(kv);
    auto decoder = Decoder::Load(
        model, **checkpoint,
        {.step_tokens = kStepTokens, .logits_rows = kStepTokens, .context_tokens = kContextTokens},
        stage.kv.get(), rank->comm.get(), rank->pool.get());
    EXPECT_TRUE(decoder.ok()) << ToString(decoder.status());
    if (!decoder.ok()) return nullptr;
    stage.decoder = *std::move(decoder);
  }
  if (stages.size() > 1) {
    rank->decoder = std::make_unique<StagedDecoder>(std::move(stages));
  } else {
    rank->kv = std::move(stages[0].kv);
    rank->decoder = std::move(stages[0].decoder);
  }
  return rank;
}

}  // namespace

void RunRanks(const std::filesystem::path& folder, const RigOptions& options,
              const std::function<void(Rank&)>& script) {
  ThreadRanks ranks(options.tp);
  std::vector<std::unique_ptr<Rank>> loaded;
  for (int i = 0; i < options.tp; ++i) {
    loaded.push_back(LoadRank(folder, options, i, &ranks));
    ASSERT_NE(loaded.back(), nullptr);
  }
  std::vector<std::thread> threads;
  for (const auto& rank : loaded) threads.emplace_back([&script, &rank] { script(*rank); });
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> Feed(Rank& rank, Sequence& sequence, std::span<const TokenId> ids,
                        const std::function<bool(size_t)>& wanted) {
  std::vector<ForwardRow> rows;
  for (const TokenId id : ids) {
    rows.push_back(
        {.token = id, .position = sequence.length++, .sequence = 0, .logits = wanted(rows.size())});
  }
  const std::span<const BlockId> tables[] = {sequence.table};
  const auto logits = rank.decoder->Forward({rows, tables});
  EXPECT_TRUE(logits.ok()) << ToString(logits.status());
  if (!logits.ok()) return {};
  return {logits->begin(), logits->end()};
}

std::vector<float> FeedInChunks(Rank& rank, Sequence& sequence, std::span<const TokenId> ids,
                                size_t chunk) {
  std::vector<float> all;
  for (size_t begin = 0; begin < ids.size(); begin += chunk) {
    const auto logits =
        Feed(rank, sequence, ids.subspan(begin, std::min(chunk, ids.size() - begin)));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

TokenId Best(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace fathom::worker
