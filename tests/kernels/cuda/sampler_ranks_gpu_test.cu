// The ranks of a tensor-parallel group share the rows of a step: each rank has a slice of the
// logits of every row, samples some of the rows from all slices, and takes the results of the other
// rows from the other ranks. Every rank then has the results and the slots of one GPU that does all
// rows alone. The ranks run one after the other on one device here.
#include <memory>

#include "kernels/cuda/sampler/sampler.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/sampler_on_device.h"
#include "tests/kernels/cuda/sampler_oracle.h"

namespace fathom::gpu_test {
namespace {

namespace cuda = kernels::cuda;

struct Split {
  int ranks;
  int vocab;
  int rows;
  int padding = 0;  // Floats behind each row of a slice.
};

using SampleKernel = cudaError_t (*)(const LaunchContext&, const cuda::SamplerArgs&);

class SamplerRanksTest : public testing::TestWithParam<SampleKernel> {
 protected:
  // The logits of `rank`; what lies beyond the vocabulary or the slice is NaN.
  static std::vector<float> SliceOf(Batch& batch, const Split& split, int width, int rank) {
    const int stride = width + split.padding;
    std::vector<float> slice(static_cast<size_t>(split.rows) * stride, NAN);
    for (int row = 0; row < split.rows; ++row) {
      for (int i = 0; i < width && rank * width + i < split.vocab; ++i) {
        slice[static_cast<size_t>(row) * stride + i] = batch.Logits(row)[rank * width + i];
      }
    }
    return slice;
  }
  static void RunAndCompare(Batch batch, const Split& split);
};
INSTANTIATE_TEST_SUITE_P(Kernels, SamplerRanksTest,
                         testing::Values(cuda::SampleCluster, cuda::SampleGeneric),
                         [](const auto& info) { return info.index == 0 ? "Cluster" : "Generic"; });

void SamplerRanksTest::RunAndCompare(Batch batch, const Split& split) {
  const int width = (split.vocab + split.ranks - 1) / split.ranks;
  std::vector<std::unique_ptr<OnDevice>> ranks;
  std::vector<std::unique_ptr<DeviceBuffer<float>>> slices;
  cuda::LogitsSlices logits{.width = width, .stride = width + split.padding};
  cuda::ApplySamplesArgs apply{.ranks = split.ranks};
  for (int rank = 0; rank < split.ranks; ++rank) {
    ranks.push_back(std::make_unique<OnDevice>(batch));
    slices.push_back(std::make_unique<DeviceBuffer<float>>(SliceOf(batch, split, width, rank)));
    logits.slices[rank] = slices.back()->get();
    apply.outs[rank] = ranks.back()->out.get();
  }
  const std::vector<SampleOut> before = ranks[0]->out.Download();
  for (auto& rank : ranks) rank->out.Upload(before);
  for (int rank = 0; rank < split.ranks; ++rank) {
    cuda::SamplerArgs args = ranks[rank]->args;
    args.logits = logits;
    args.first_row = rank;
    args.row_step = split.ranks;
    ASSERT_CUDA(GetParam()(MakeContext(), args));
  }
  for (int rank = 0; rank < split.ranks; ++rank) {
    const cuda::SamplerArgs& args = ranks[rank]->args;
    apply.rank = rank;
    apply.rows = args.rows;
    apply.slots = args.slots;
    apply.seen = args.seen;
    apply.slot_tokens = args.slot_tokens;
    apply.slot_faults = args.slot_faults;
    apply.slot_thinking = args.slot_thinking;
    apply.out = args.out;
    apply.count = args.count;
    apply.vocab = args.vocab;
    ASSERT_CUDA(cuda::ApplySamples(MakeContext(true), apply));
  }
  Finish();
  std::vector<SampleOut> want;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    want.push_back(Want(&batch, batch.rows[i], before[i]));
  }
  for (int rank = 0; rank < split.ranks; ++rank) {
    const std::string who = "rank " + std::to_string(rank) + " of " + std::to_string(split.ranks);
    const std::vector<SampleOut> got = ranks[rank]->out.Download();
    for (size_t i = 0; i < want.size() && !testing::Test::HasFailure(); ++i) {
      ExpectSame(got[i], want[i], who + ", " + Describe(batch, i));
    }
    ExpectSameBits(ranks[rank]->slot_tokens.Download(), batch.slot_tokens, who + ": slot_tokens");
    ExpectSameBits(ranks[rank]->slot_faults.Download(), batch.slot_faults, who + ": slot_faults");
    ExpectSameThinking(*ranks[rank], batch);
    ExpectSameBits(ranks[rank]->seen.Download(), batch.seen, who + ": seen", batch.vocab);
  }
}

TEST_P(SamplerRanksTest, RanksTogetherAreOneGpu) {
  std::mt19937_64 random(Seed());
  for (const Split split :
       {Split{2, 4096, 1}, Split{2, 4096, 64}, Split{2, 1003, 33}, Split{2, 102400, 8},
        Split{2, 151669, 5, 27}, Split{3, 4097, 20}, Split{4, 4096, 3}, Split{4, 32256, 17, 16},
        Split{8, 4100, 40, 4}, Split{8, 102400, 9}}) {
    for (int i = 0; i < (Sanitized() ? 1 : 4); ++i) {
      RunAndCompare(RandomBatch(split.vocab, split.rows, random), split);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SamplerRanksTest, FaultsReachEveryRank) {
  std::mt19937_64 random(Seed() + 1);
  const Split split{4, 4096, 40};
  Batch batch = RandomBatch(split.vocab, split.rows, random);
  for (size_t i = 0; i < batch.rows.size(); ++i) batch.rows[i].logits_row = static_cast<int>(i);
  batch.Logits(3)[4095] = NAN;  // In the last rank's slice, in a row of the last rank.
  batch.Logits(4)[4095] = NAN;  // In a row of the first rank.
  batch.Logits(6)[0] = INFINITY;
  batch.faults[9] = cuda::kFaultBlockRange;
  batch.slot_faults[static_cast<size_t>(batch.rows[14].slot)] = cuda::kFaultNonFinite;
  RunAndCompare(batch, split);
}

TEST_P(SamplerRanksTest, RefusesMoreSlicesThanThereAre) {
  cuda::SamplerArgs args;
  args.vocab = 4096;
  args.count = 1;
  args.logits.width = 4096 / 9;
  EXPECT_EQ(GetParam()(MakeContext(), args), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace fathom::gpu_test
