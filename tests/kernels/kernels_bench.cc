// Prints the times of the decoder's parts on this machine: kernels_bench [model folder] [threads].
// Not a test: nothing is asserted. The medians are meaningful only on a quiet machine.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <vector>

#include "common/status.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/sample.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/comm.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"

namespace fathom {
namespace {

using worker::ForwardRow;

constexpr int32_t kBlockTokens = 16;
constexpr int32_t kSequences = 16;
constexpr int32_t kBlocksPerSequence = 64;

double BestUs(int rounds, const std::function<void()>& body) {
  double best = 1e300;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
  }
  return best;
}

// `sequences` rows at `position` each, or one chunk of a sequence.
std::vector<ForwardRow> Decodes(int32_t sequences, int32_t position) {
  std::vector<ForwardRow> rows;
  for (int32_t s = 0; s < sequences; ++s) rows.push_back({17 + s, position, s, true});
  return rows;
}

std::vector<ForwardRow> Prompt(int32_t begin, int32_t count) {
  std::vector<ForwardRow> rows;
  for (int32_t i = 0; i < count; ++i) rows.push_back({i % 1000, begin + i, 0, i + 1 == count});
  return rows;
}

int Run(const char* folder, int threads) {
  const auto config = ReadModelConfig(folder);
  if (!config.ok()) return fmt::print("{}\n", ToString(config.status())), 1;
  const auto checkpoint = OpenCheckpoint(folder, *config);
  if (!checkpoint.ok()) return fmt::print("{}\n", ToString(checkpoint.status())), 1;
  const RankModel model = RankOf(SpecOf(*config));
  auto kv = worker::KvCache::Allocate(
      worker::KvShapeOf(model, kBlockTokens, 1 + kSequences * kBlocksPerSequence));
  worker::SingleRankComm comm;
  kernels::ThreadPool pool(threads);
  auto decoder = worker::Decoder::Load(
      model, **checkpoint, {.step_tokens = 512, .logits_rows = 64, .context_tokens = 1024},
      kv->get(), &comm, &pool);
  std::vector<std::vector<BlockId>> blocks(kSequences);
  std::vector<std::span<const BlockId>> tables;
  for (int32_t s = 0; s < kSequences; ++s) {
    for (int32_t b = 0; b < kBlocksPerSequence; ++b) {
      blocks[static_cast<size_t>(s)].push_back(BlockId{1 + s * kBlocksPerSequence + b});
    }
    tables.emplace_back(blocks[static_cast<size_t>(s)]);
  }
  const auto time = [&](const std::vector<ForwardRow>& rows, int rounds) {
    return BestUs(rounds, [&] { (void)(*decoder)->Forward({rows, tables}); });
  };
  for (const kernels::CpuIsa isa : kernels::SupportedCpuIsas()) {
    if (isa == kernels::CpuIsa::kReference) continue;
    kernels::UseCpuIsa(isa);
    fmt::print("{}, {} threads\n", kernels::CpuIsaName(isa), threads);
    for (const int32_t position : {0, 100, 500}) {
      for (const int32_t sequences : {1, 2, 4, 8, 16}) {
        fmt::print("  decode {:2} rows at {:3}: {:7.1f} us\n", sequences, position,
                   time(Decodes(sequences, position), 300));
      }
    }
    for (const int32_t begin : {0, 512}) {
      const double us = time(Prompt(begin, 256), 20);
      fmt::print("  prefill 256 rows at {:3}: {:7.1f} us, {:.0f} tokens/s\n", begin, us,
                 256e6 / us);
    }
    const auto logits = (*decoder)->Forward({Decodes(1, 100), tables});
    kernels::SampleScratch scratch;
    kernels::SampleArgs args{.logits = *logits, .seed = 5, .scratch = &scratch};
    int32_t position = 0;
    const auto sample = [&] {
      return BestUs(300, [&] {
        args.position = position++;
        (void)kernels::SampleCpu(args);
      });
    };
    fmt::print("  sample: {:.1f} us", sample());
    args.params.top_p = 0.95f;
    fmt::print(", top_p {:.1f} us", sample());
    args.params.temperature = 0;
    fmt::print(", greedy {:.1f} us\n", sample());
  }
  return 0;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  return fathom::Run(argc > 1 ? argv[1] : FATHOM_SOURCE_DIR "/models/fathom-tiny",
                     argc > 2 ? std::atoi(argv[2]) : 1);
}
