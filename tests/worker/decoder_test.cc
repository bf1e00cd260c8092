// The forward pass against recorded outputs of another implementation, and against itself: the
// logits of a sequence have the same bits however it is divided into chunks and steps.
#include "worker/cpu/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "common/status.h"
#include "kernels/logprob.h"
#include "modeling/architectures/architecture.h"
#include "tests/worker/decoder_rig.h"

namespace fathom::worker {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = FATHOM_SOURCE_DIR;
constexpr float kLogprobTolerance = 2e-3f;

struct Golden {
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> output_ids;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;  // From the second token on; may be empty.
};

std::vector<Golden> ReadGoldens(const fs::path& path) {
  std::vector<Golden> goldens;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    Golden golden{.prompt_ids = json.at("prompt_ids"),
                  .output_ids = json.at("output_ids"),
                  .logprobs = json.at("logprobs"),
                  .prompt_logprobs = {}};
    if (json.contains("prompt_logprobs")) {
      for (const auto& value : json["prompt_logprobs"]) {
        if (!value.is_null()) golden.prompt_logprobs.push_back(value);
      }
    }
    goldens.push_back(std::move(golden));
  }
  EXPECT_FALSE(goldens.empty()) << path;
  return goldens;
}

float Logprob(std::span<const float> logits, int tp, TokenId id) {
  return kernels::LogprobCpu(
      {.logits = logits, .slices = tp, .id = id, .top_ids = {}, .top_logprobs = {}});
}

// Scores the prompt and generates greedily; only rank 0 compares.
void ReplayGolden(Rank& rank, const Golden& golden) {
  const bool check = rank.comm->rank() == 0;
  const int tp = rank.comm->size();
  Sequence sequence(1, 2048 / rank.kv->shape().block_tokens);
  std::vector<float> logits = Feed(rank, sequence, golden.prompt_ids);
  const size_t vocab = logits.size() / golden.prompt_ids.size();
  const auto row = [&](size_t i) {
    return std::span<const float>(logits).subspan(i * vocab, vocab);
  };
  for (size_t i = 0; check && i < golden.prompt_logprobs.size(); ++i) {
    EXPECT_NEAR(Logprob(row(i), tp, golden.prompt_ids[i + 1]), golden.prompt_logprobs[i],
                kLogprobTolerance)
        << "prompt token " << i + 1;
  }
  TokenId next = Best(row(golden.prompt_ids.size() - 1));
  float logprob = Logprob(row(golden.prompt_ids.size() - 1), tp, next);
  for (size_t i = 0; i < golden.output_ids.size(); ++i) {
    if (check) {
      EXPECT_EQ(next, golden.output_ids[i]) << "output token " << i;
      EXPECT_NEAR(logprob, golden.logprobs[i], kLogprobTolerance) << "output token " << i;
    }
    logits = Feed(rank, sequence, std::span(&golden.output_ids[i], 1));
    next = Best(logits);
    logprob = Logprob(logits, tp, next);
  }
}

struct GoldenCase {
  std::string name;
  fs::path folder;
  fs::path goldens;
  int tp;
};

void PrintTo(const GoldenCase& c, std::ostream* out) { *out << c.name; }

// The bundled models, and each fixture that exists beside the checkout.
std::vector<GoldenCase> GoldenCases() {
  std::vector<GoldenCase> cases;
  const auto add = [&cases](const std::string& name, const fs::path& folder, const fs::path& file) {
    for (const int tp : {1, 2}) {
      std::string id = name + "_tp" + std::to_string(tp);
      std::replace(id.begin(), id.end(), '-', '_');
      cases.push_back({id, folder, file, tp});
    }
  };
  for (const char* name : {"fathom-tiny", "fathom-tiny-draft"}) {
    add(name, kRoot / "models" / name,
        kRoot / "tests/data/goldens" / (std::string(name) + ".jsonl"));
  }
  for (const char* name : {"fixtures", "fixtures-next"}) {
    const fs::path fixtures = kRoot / "../shared" / name;
    if (!fs::exists(fixtures)) continue;
    for (const auto& entry : fs::directory_iterator(fixtures)) {
      add(entry.path().filename(), entry.path(), entry.path() / "goldens.jsonl");
    }
  }
  return cases;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenTest, TokensAreExactAndLogprobsClose) {
  const std::vector<Golden> goldens = ReadGoldens(GetParam().goldens);
  RunRanks(GetParam().folder, {.tp = GetParam().tp}, [&goldens](Rank& rank) {
    for (const Golden& golden : goldens) ReplayGolden(rank, golden);
  });
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(GoldenCases()),
                         [](const auto& param_info) { return param_info.param.name; });

int LayersOf(const fs::path& folder) {
  const auto config = ReadModelConfig(folder);
  return config.ok() ? static_cast<int>(SpecOf(*config).layers.size()) : 0;
}

// The logits of all prompts of the goldens, one after the other, in chunks of 7 tokens.
std::vector<float> LogitsOfPrompts(const GoldenCase& golden_case, int stages) {
  const std::vector<Golden> goldens = ReadGoldens(golden_case.goldens);
  std::vector<float> logits;
  RunRanks(golden_case.folder, {.tp = golden_case.tp, .stages = stages}, [&](Rank& rank) {
    for (const Golden& golden : goldens) {
      Sequence sequence(1, 2048 / 16);
      const std::span<const TokenId> ids(golden.prompt_ids);
      const auto mine =
          FeedInChunks(rank, sequence, ids.first(std::min(ids.size(), size_t{40})), 7);
      if (rank.comm->rank() == 0) logits.insert(logits.end(), mine.begin(), mine.end());
    }
  });
  return logits;
}

TEST_P(GoldenTest, StagesHaveTheBitsOfTheWholeModel) {
  const std::vector<float> whole = LogitsOfPrompts(GetParam(), 1);
  ASSERT_FALSE(whole.empty());
  const int layers = LayersOf(GetParam().folder);
  ASSERT_GE(layers, 2);
  for (const int stages : {2, layers}) {
    EXPECT_TRUE(LogitsOfPrompts(GetParam(), stages) == whole) << stages << " stages";
  }
}

const fs::path kTiny = kRoot / "models/fathom-tiny";

std::vector<TokenId> RandomIds(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % 4096);
  return ids;
}

// Long enough to have more than one segment of 512 tokens.
const std::vector<TokenId> kIds = RandomIds(600, 1);

std::vector<float> LogitsOf(const RigOptions& options, size_t chunk) {
  std::vector<float> logits;
  RunRanks(kTiny, options, [&](Rank& rank) {
    Sequence sequence(1, 1024 / options.block_tokens);
    std::vector<float> mine = FeedInChunks(rank, sequence, kIds, chunk);
    if (rank.comm->rank() == 0) logits = std::move(mine);
  });
  return logits;
}

TEST(DecoderTest, ChunksOfAnySizeGiveTheBitsOfOneChunk) {
  const std::vector<float> whole = LogitsOf({}, kIds.size());
  ASSERT_EQ(whole.size(), kIds.size() * 4096);
  EXPECT_TRUE(LogitsOf({}, 7) == whole);
  EXPECT_TRUE(LogitsOf({}, 64) == whole);
  EXPECT_TRUE(LogitsOf({}, 1) == whole) << "decoded is not prefilled";
}

// The last layer computes only the rows with logits. The choice of these rows changes no bit of
// their logits, and no bit of the rows after a chunk without logits.
TEST(DecoderTest, RowsWithoutLogitsDoNotMatter) {
  constexpr size_t kVocab = 4096;
  const std::vector<size_t> some = {0, 3, 7, 511, 512, 598};
  for (const int tp : {1, 2}) {
    const std::vector<float> all = LogitsOf({.tp = tp}, kIds.size());
    RunRanks(kTiny, {.tp = tp}, [&](Rank& rank) {
      Sequence sparse(1, 64), blind(65, 64);
      const auto got = Feed(rank, sparse, kIds, [&](size_t i) {
        return std::find(some.begin(), some.end(), i) != some.end();
      });
      ASSERT_EQ(got.size(), some.size() * kVocab);
      for (size_t i = 0; i < some.size(); ++i) {
        EXPECT_TRUE(std::equal(got.begin() + static_cast<std::ptrdiff_t>(i * kVocab),
                               got.begin() + static_cast<std::ptrdiff_t>((i + 1) * kVocab),
                               all.begin() + static_cast<std::ptrdiff_t>(some[i] * kVocab)))
            << "row " << some[i] << ", tp " << tp;
      }
      const std::span<const TokenId> ids(kIds);
      const auto none = Feed(rank, blind, ids.first(599), [](size_t) { return false; });
      EXPECT_TRUE(none.empty());
      const auto last = Feed(rank, blind, ids.subspan(599));
      EXPECT_TRUE(std::equal(last.begin(), last.end(), all.end() - kVocab)) << "tp " << tp;
    });
  }
}

// The rows with logits are chosen in the last layer of the last stage only.
TEST(DecoderTest, StagesChunksAndThreadsDoNotMatter) {
  for (const int tp : {1, 2}) {
    const std::vector<float> whole = LogitsOf({.tp = tp}, kIds.size());
    for (const int stages : {2, 3, 8}) {
      EXPECT_TRUE(LogitsOf({.tp = tp, .stages = stages}, kIds.size()) == whole) << stages;
    }
    EXPECT_TRUE(LogitsOf({.tp = tp, .stages = 4, .threads = 2}, 50) == whole);
    RunRanks(kTiny, {.tp = tp, .stages = 3}, [&](Rank& rank) {
      Sequence sequence(1, 64);
      const auto last = Feed(rank, sequence, kIds, [](size_t i) { return i + 1 == kIds.size(); });
      EXPECT_TRUE(std::equal(last.begin(), last.end(), whole.end() - 4096)) << "tp " << tp;
    });
  }
}

TEST(DecoderTest, BlockSizeAndThreadsDoNotMatter) {
  const std::vector<float> whole = LogitsOf({}, kIds.size());
  EXPECT_TRUE(LogitsOf({.block_tokens = 64}, 100) == whole);
  EXPECT_TRUE(LogitsOf({.threads = 2}, kIds.size()) == whole);
  EXPECT_TRUE(LogitsOf({.threads = 3}, 1) == whole);
}

TEST(DecoderTest, RanksThatSplitTheModelAgreeWithThemselves) {
  EXPECT_TRUE(LogitsOf({.tp = 2}, kIds.size()) == LogitsOf({.tp = 2, .threads = 2}, 7));
  // There are more ranks than kv heads, so the kv heads are replicated.
  EXPECT_TRUE(LogitsOf({.tp = 4}, kIds.size()) == LogitsOf({.tp = 4}, 50));
}

TEST(DecoderTest, ASequenceAloneIsTheSequenceAmongOthers) {
  constexpr int32_t kSequences = 16;
  RunRanks(kTiny, {}, [](Rank& rank) {
    std::vector<std::vector<TokenId>> ids;
    std::vector<std::vector<float>> alone;
    for (int32_t i = 0; i < kSequences; ++i) {
      ids.push_back(RandomIds(size_t{3} + 5 * i, 100u + i));
      Sequence sequence(1 + 8 * i, 8);
      alone.push_back(Feed(rank, sequence, ids.back()));
      for (const BlockId block : sequence.table) ASSERT_TRUE(rank.kv->Zero(block).ok());
    }
    // One step computes all tokens of all prompts except the last ones. A second step computes the
    // last ones as decode rows.
    std::vector<Sequence> sequences;
    std::vector<std::span<const BlockId>> tables;
    std::vector<ForwardRow> prompts, lasts;
    for (int32_t i = 0; i < kSequences; ++i) sequences.emplace_back(1 + 8 * i, 8);
    for (int32_t i = 0; i < kSequences; ++i) {
      tables.emplace_back(sequences[static_cast<size_t>(i)].table);
      const auto& mine = ids[static_cast<size_t>(i)];
      for (int32_t p = 0; p < static_cast<int32_t>(mine.size()); ++p) {
        const bool last = p + 1 == static_cast<int32_t>(mine.size());
        (last ? lasts : prompts).push_back({mine[static_cast<size_t>(p)], p, i, last});
      }
    }
    const auto none = rank.decoder->Forward({prompts, tables});
    ASSERT_TRUE(none.ok());
    EXPECT_TRUE(none->empty()) << "no row asked for logits";
    const auto together = rank.decoder->Forward({lasts, tables});
    ASSERT_TRUE(together.ok());
    for (size_t i = 0; i < kSequences; ++i) {
      EXPECT_TRUE(std::equal(alone[i].end() - 4096, alone[i].end(),
                             together->begin() + static_cast<int64_t>(i) * 4096))
          << "sequence " << i;
    }
  });
}

TEST(DecoderTest, ABlockCopiedIsTheBlock) {
  RunRanks(kTiny, {}, [](Rank& rank) {
    Sequence sequence(1, 4);
    Feed(rank, sequence, std::span(kIds).first(40));
    Sequence fork(1, 4);
    fork.length = 40;
    fork.table[2] = BlockId{9};  // Tokens 32 to 47, half full.
    ASSERT_TRUE(rank.kv->Copy(BlockId{3}, BlockId{9}).ok());
    const auto original = Feed(rank, sequence, std::span(kIds).subspan(40, 3));
    EXPECT_TRUE(Feed(rank, fork, std::span(kIds).subspan(40, 3)) == original);
    EXPECT_FALSE(rank.kv->Copy(BlockId{0}, BlockId{9}).ok());
    EXPECT_FALSE(rank.kv->Zero(BlockId{1 << 20}).ok());
  });
}

TEST(DecoderTest, RowsThatDoNotExistAreRefused) {
  RunRanks(kTiny, {}, [](Rank& rank) {
    const std::vector<BlockId> table = {BlockId{1}};
    const std::vector<BlockId> foreign = {BlockId{1}, BlockId{1 << 20}};
    const auto code = [&rank](const ForwardRow& row, std::span<const BlockId> blocks) {
      const std::span<const BlockId> tables[] = {blocks};
      return rank.decoder->Forward({std::span(&row, 1), tables}).status().code();
    };
    constexpr auto kOutOfRange = absl::StatusCode::kOutOfRange;
    EXPECT_EQ(code({.token = -1}, table), kOutOfRange);
    EXPECT_EQ(code({.token = 4096}, table), kOutOfRange);
    EXPECT_EQ(code({.position = -1}, table), kOutOfRange);
    EXPECT_EQ(code({.position = 16}, table), kOutOfRange);
    EXPECT_EQ(code({.position = 1 << 20}, table), kOutOfRange);
    EXPECT_EQ(code({.sequence = 1}, table), kOutOfRange);
    EXPECT_EQ(code({}, foreign), kOutOfRange);
    EXPECT_EQ(code({.position = 15}, table), absl::StatusCode::kOk);
  });
}

}  // namespace
}  // namespace fathom::worker
