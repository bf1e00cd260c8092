// Both samplers on the device against the host's: tokens, log-probabilities (bit for bit), faults,
// and the state that rows leave in their slots.
#include "kernels/cuda/sampler/sampler.h"

#include <algorithm>
#include <memory>

#include "kernels/cuda/sampler/sampler_config.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/sampler_on_device.h"
#include "tests/kernels/cuda/sampler_oracle.h"

namespace fathom::gpu_test {
namespace {

namespace canon = kernels::canon;
namespace cuda = kernels::cuda;

// Each test runs with each of the two kernels.
struct Sampler {
  const char* name;
  cudaError_t (*sample)(const LaunchContext&, const cuda::SamplerArgs&);
};
class SamplerGpuTest : public testing::TestWithParam<Sampler> {
 protected:
  static cudaError_t Sample(const LaunchContext& context, const cuda::SamplerArgs& args) {
    return GetParam().sample(context, args);
  }
  static void RunAndCompare(Batch batch);
};
INSTANTIATE_TEST_SUITE_P(Kernels, SamplerGpuTest,
                         testing::Values(Sampler{"Cluster", cuda::SampleCluster},
                                         Sampler{"Generic", cuda::SampleGeneric}),
                         [](const auto& info) { return std::string(info.param.name); });

// Runs the batch and compares everything that it writes.
void SamplerGpuTest::RunAndCompare(Batch batch) {
  OnDevice device(batch);
  const std::vector<SampleOut> before = device.out.Download();
  ASSERT_CUDA(Sample(MakeContext(), device.args));
  Finish();
  const std::vector<SampleOut> got = device.out.Download();
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    ExpectSame(got[i], Want(&batch, batch.rows[i], before[i]), Describe(batch, i));
    if (testing::Test::HasFailure()) return;
  }
  ExpectSameBits(device.slot_tokens.Download(), batch.slot_tokens, "slot_tokens");
  ExpectSameBits(device.slot_faults.Download(), batch.slot_faults, "slot_faults");
  ExpectSameThinking(device, batch);
  ExpectSameBits(device.seen.Download(), batch.seen, "seen", batch.vocab);
}

struct Shape {
  int vocab, rows, batches;
};

TEST_P(SamplerGpuTest, RandomRowsAreTheReferences) {
  std::mt19937_64 random(Seed());
  for (const Shape shape : {Shape{1003, 1, 40},
                            {1003, 256, 8},
                            {512, 100, 4},
                            {2048, 37, 10},
                            {4096, 1, 20},
                            {4096, 64, 6},
                            {4098, 8, 3},
                            {32256, 16, 2},
                            {102400, 1, 12},
                            {102400, 24, 3},
                            {152064, 16, 1},
                            {151643, 8, 1}}) {
    for (int i = 0; i < (Sanitized() ? 1 : shape.batches); ++i) {
      RunAndCompare(RandomBatch(shape.vocab, shape.rows, random));
      if (HasFailure()) return;
    }
  }
}

// Temperatures and penalties at the limits of requests and beyond, and logits up to the largest
// float. The device draws the host's tokens, and a row faults only if its whole vocabulary is
// masked.
TEST_P(SamplerGpuTest, HardValuesAreTheReferences) {
  std::mt19937_64 random(Seed() + 7);
  for (const Shape shape : {Shape{1003, 64, 10}, {4096, 48, 6}, {4098, 16, 3}, {102400, 8, 2}}) {
    for (int i = 0; i < (Sanitized() ? 1 : shape.batches); ++i) {
      Batch batch = RandomBatch(shape.vocab, shape.rows, random);
      for (int row = 0; row < shape.rows; ++row) {
        const float scale = Pick(random, {1e-38f, 1.0f, 1e4f, 1e30f, 1e34f, 2e36f});
        for (float& z : batch.Logits(row)) z *= scale;
        if (random() % 4 == 0) {
          batch.Logits(row)[random() % shape.vocab] = Pick(random, {3.4028235e38f, -3.4028235e38f});
        }
        SamplerSlot& slot = batch.slots[static_cast<size_t>(row)];
        slot.params.temperature =
            Pick(random, {1e-45f, 1e-38f, 1e-20f, 9.99e-6f, 1e-5f, 1e-3f, 1.0f, 2.0f});
        slot.params.repetition_penalty = Pick(random, {1e-45f, 1e-38f, 1e-3f, 1.0f, 2.0f});
        slot.params.presence_penalty = Pick(random, {0.0f, 2.0f, -2.0f});
        slot.params.frequency_penalty = Pick(random, {0.0f, 2.0f, -2.0f});
        slot.params.top_p = Pick(random, {1e-45f, 1e-38f, 0.9f, 1.0f, 1.0f});
        slot.params.min_p = Pick(random, {0.0f, 0.0f, 1e-45f, 0.5f});
        slot.params.typical_p = Pick(random, {1e-45f, 1e-38f, 0.5f, 1.0f, 1.0f, 1.0f});
      }
      RunAndCompare(batch);
      if (HasFailure()) return;
    }
  }
}

// Rows of a padded vocabulary: the values beyond its end are not read, even if they are NaN or
// larger than all others.
TEST_P(SamplerGpuTest, TheEndOfTheVocabularyIsTheEnd) {
  std::mt19937_64 random(Seed() + 8);
  for (const auto& [vocab, stride] :
       {std::pair{1003, 1008}, {4097, 4112}, {4096, 4099}, {61, 64}}) {
    for (const float padding : {NAN, 1e30f}) {
      Batch batch = RandomBatch(vocab, 24, random);
      OnDevice device(batch);
      const auto rows = static_cast<int>(batch.rows.size());
      std::vector<float> padded(static_cast<size_t>(rows) * stride, padding);
      for (int row = 0; row < rows; ++row) {
        const std::span<float> z = batch.Logits(row);
        std::copy(z.begin(), z.end(), padded.begin() + int64_t{row} * stride);
      }
      const DeviceBuffer<float> strided(padded);
      device.args.logits = {{strided.get()}, 0, stride};
      const std::vector<SampleOut> before = device.out.Download();
      ASSERT_CUDA(Sample(MakeContext(), device.args));
      Finish();
      const std::vector<SampleOut> got = device.out.Download();
      for (size_t i = 0; i < got.size() && !HasFailure(); ++i) {
        ExpectSame(got[i], Want(&batch, batch.rows[i], before[i]), Describe(batch, i));
      }
    }
  }
}

// A large batch whose rows are copies of a few rows: equal rows give equal results, independent of
// the other rows.
TEST_P(SamplerGpuTest, RowsDoNotDependOnOthers) {
  std::mt19937_64 random(Seed() + 1);
  Batch batch = RandomBatch(Width(102400), 4, random);
  OnDevice few(batch);
  few.slot_faults.Zero();
  ASSERT_CUDA(Sample(MakeContext(), few.args));
  Finish();
  const std::vector<SampleOut> want = few.out.Download();
  Batch many = batch;
  many.rows.clear();
  many.slots.clear();
  many.seen.clear();
  many.slot_thinking.clear();
  for (int i = 0; i < 256; ++i) {
    SampleRow row = batch.rows[static_cast<size_t>(i) % 4];
    const int slot = row.slot;
    row.slot = i;
    many.rows.push_back(row);
    many.slots.push_back(batch.slots[static_cast<size_t>(slot)]);
    many.slot_thinking.push_back(batch.slot_thinking[static_cast<size_t>(slot)]);
    const auto seen = batch.Seen(slot);
    many.seen.insert(many.seen.end(), seen.begin(), seen.end());
  }
  many.slot_tokens.assign(256, 0);
  many.slot_faults.assign(256, 0);
  OnDevice device(many);
  ASSERT_CUDA(Sample(MakeContext(), device.args));
  Finish();
  const std::vector<SampleOut> got = device.out.Download();
  for (size_t i = 0; i < got.size() && !HasFailure(); ++i) {
    ExpectSame(got[i], want[i % 4], Describe(many, i));
  }
}

// The most equal masses in one bin; the counters of the bin must not overflow.
TEST_P(SamplerGpuTest, BinsHoldTheLargestVocabulary) {
  std::mt19937_64 random(Seed() + 6);
  Batch batch = RandomBatch(cuda::kSampleVocabMax, 3, random);
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const std::span<float> z = batch.Logits(static_cast<int>(i));
    std::fill(z.begin(), z.end(), -12.0f);
    z[777] = 0.0f;
    SampleRow& row = batch.rows[i];
    row.target = -1;
    SamplerSlot slot;
    slot.seed = random();
    slot.params.top_p = i == 0 ? 0.5f : i == 1 ? 0.9f : 0.9999f;
    batch.slots[static_cast<size_t>(row.slot)] = slot;
  }
  RunAndCompare(batch);
}

// typical_p alone, and after each of the other filters, for rows of all kinds. The least and the
// largest distances, and rows of equal scores, whose tokens are all at one distance.
TEST_P(SamplerGpuTest, TypicalTokensAreTheReferences) {
  std::mt19937_64 random(Seed() + 9);
  for (const Shape shape : {Shape{1003, 64, 12}, {4096, 64, 8}, {4098, 16, 4}, {102400, 8, 4}}) {
    for (int i = 0; i < (Sanitized() ? 1 : shape.batches); ++i) {
      Batch batch = RandomBatch(shape.vocab, shape.rows, random);
      for (int row = 0; row < shape.rows; ++row) {
        SamplerSlot& slot = batch.slots[static_cast<size_t>(row)];
        slot.params = {.temperature = Pick(random, {0.5f, 1.0f, 1.0f, 2.0f})};
        slot.params.typical_p =
            Pick(random, {1e-45f, 0.01f, 0.2f, 0.5f, 0.9f, 0.999f, 0.99999994f});
        const int other = static_cast<int>(random() % 4);
        if (other == 1) slot.params.top_k = 100;
        if (other == 2) slot.params.top_p = 0.9f;
        if (other == 3) slot.params.min_p = 0.01f;
        batch.rows[static_cast<size_t>(row)].target = -1;
        const std::span<float> z = batch.Logits(row);
        const int kind = static_cast<int>(random() % 6);
        if (kind == 0) std::fill(z.begin(), z.end(), 3.0f);
        if (kind == 1) z[random() % z.size()] += 12.0f;  // One best score far above the others.
        if (kind == 2) {  // Two distances, of opposite sides of the mean.
          for (float& value : z) value = random() % 2 == 0 ? 1.0f : 0.0f;
        }
      }
      RunAndCompare(batch);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SamplerGpuTest, FaultsStayInTheirRows) {
  std::mt19937_64 random(Seed() + 2);
  for (const int vocab : {1003, 4096}) {
    Batch batch = RandomBatch(vocab, 40, random);
    for (size_t i = 0; i < batch.rows.size(); ++i) batch.rows[i].logits_row = static_cast<int>(i);
    const auto poison = [&](int row, int id, float value) {
      batch.Logits(row)[static_cast<size_t>(id)] = value;
    };
    poison(3, vocab - 1, NAN);
    poison(4, 0, INFINITY);
    poison(9, 517, -INFINITY);
    poison(10, 130, NAN);
    poison(11, vocab / 2, std::copysign(NAN, -1.0f));
    batch.faults[14] = cuda::kFaultBlockRange;
    batch.slot_faults[static_cast<size_t>(batch.rows[15].slot)] = cuda::kFaultNonFinite;
    batch.rows[16].target = vocab;  // Not an id.
    // No token is left, because every id has a bias of -inf.
    for (const size_t i : {20, 21}) {
      SamplerSlot& slot = batch.slots[static_cast<size_t>(batch.rows[i].slot)];
      batch.rows[i].target = -1;
      slot.params.temperature = i == 20 ? 0.0f : 0.8f;
      slot.bias_begin = static_cast<int32_t>(batch.bias_ids.size());
      slot.bias_count = vocab;
      for (int id = 0; id < vocab; ++id) {
        batch.bias_ids.push_back(id);
        batch.bias_values.push_back(-INFINITY);
      }
    }
    RunAndCompare(batch);
  }
}

// Several draws of the same slots, launched one after the other with programmatic dependent launch.
// Each sees the state of `seen` after the previous one; at first, MarkSeen marks prompts and
// outputs there.
TEST_P(SamplerGpuTest, PenaltiesFollowTheDraws) {
  constexpr int kSlots = 8, kDraws = 12;
  for (const int vocab : {1003, 4096}) {
    std::mt19937_64 random(Seed() + 3);
    Batch batch = RandomBatch(vocab, kSlots * kDraws, random);
    batch.slots.resize(kSlots);
    batch.seen.resize(static_cast<size_t>(kSlots) * vocab);
    batch.slot_tokens.resize(kSlots);
    batch.slot_faults.resize(kSlots);
    batch.slot_thinking.resize(kSlots);
    for (int i = 0; i < kSlots * kDraws; ++i) {
      SampleRow& row = batch.rows[static_cast<size_t>(i)];
      row = {i, i, i % kSlots, i / kSlots, -1, row.logprobs};
      // Draws from few tokens, so that they repeat.
      for (float& z : batch.Logits(i).subspan(12)) z -= 200.0f;
    }
    for (SamplerSlot& slot : batch.slots) slot.penalized = 1, slot.bias_count = 0;
    OnDevice device(batch);
    std::fill(batch.seen.begin(), batch.seen.end(), uint16_t{0});
    std::vector<std::unique_ptr<DeviceBuffer<int32_t>>> kept;
    for (int slot = 0; slot < kSlots; ++slot) {
      std::vector<int32_t> ids;
      for (int i = 0; i < 300; ++i) ids.push_back(static_cast<int32_t>(random() % 40));
      kept.push_back(std::make_unique<DeviceBuffer<int32_t>>(ids));
      const int prompt = 20 * slot;
      const cuda::SeenArgs first{.ids = kept.back()->get(),
                                 .count = 200,
                                 .prompt_tokens = prompt,
                                 .slot = slot,
                                 .vocab = vocab,
                                 .seen = device.seen.get()};
      cuda::SeenArgs rest = first;
      rest.ids += 200, rest.count = 100, rest.prompt_tokens = 0, rest.clear = false;
      ASSERT_CUDA(cuda::MarkSeen(MakeContext(true), first));
      ASSERT_CUDA(cuda::MarkSeen(MakeContext(true), rest));
      for (int i = 0; i < 300; ++i) {
        uint16_t& seen = batch.Seen(slot)[static_cast<size_t>(ids[static_cast<size_t>(i)])];
        seen = i < prompt ? static_cast<uint16_t>(seen | 0x8000) : cuda::SeenAgain(seen);
      }
    }
    const std::vector<SampleOut> before = device.out.Download();
    Finish();
    ExpectSameBits(device.seen.Download(), batch.seen, "seen as marked", vocab);
    for (int draw = 0; draw < kDraws; ++draw) {
      cuda::SamplerArgs args = device.args;
      args.rows += draw * kSlots, args.out += draw * kSlots, args.count = kSlots;
      ASSERT_CUDA(Sample(MakeContext(true), args));
    }
    Finish();
    const std::vector<SampleOut> got = device.out.Download();
    for (size_t i = 0; i < got.size() && !HasFailure(); ++i) {
      ExpectSame(got[i], Want(&batch, batch.rows[i], before[i]), Describe(batch, i));
    }
    ExpectSameBits(device.seen.Download(), batch.seen, "seen after draws", vocab);
    ExpectSameBits(device.slot_tokens.Download(), batch.slot_tokens, "slot_tokens");
  }
}

// The sum over lanes is a log-probability; compared with float64.
TEST_P(SamplerGpuTest, LogProbabilitiesAreTrue) {
  std::mt19937_64 random(Seed() + 4);
  for (const int vocab : {1003, 4096, 102400}) {
    Batch batch = RandomBatch(vocab, 8, random);
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      batch.rows[i].logits_row = static_cast<int>(i);
      batch.rows[i].target = static_cast<int32_t>(random() % vocab);
      batch.rows[i].logprobs = 3;
    }
    OnDevice device(batch);
    ASSERT_CUDA(Sample(MakeContext(), device.args));
    Finish();
    const std::vector<SampleOut> got = device.out.Download();
    for (size_t i = 0; i < got.size(); ++i) {
      const auto z = batch.Logits(static_cast<int>(i));
      const double best = *std::max_element(z.begin(), z.end());
      double sum = 0;
      for (const float value : z) sum += std::exp(double{value} - best);
      const auto of = [&](int id) { return z[static_cast<size_t>(id)] - best - std::log(sum); };
      EXPECT_EQ(got[i].token, batch.rows[i].target);
      EXPECT_NEAR(got[i].logprob, of(got[i].token), 1e-4);
      for (int t = 0; t < 3; ++t) EXPECT_NEAR(got[i].top_logprobs[t], of(got[i].top_ids[t]), 1e-4);
    }
  }
}

// --- The formulas on the device equal those on the host ---

struct Formulas {
  float noise, exp, ex2, log;
  uint64_t mass, gap, weighted, mean, target;
};
__host__ __device__ Formulas Evaluate(uint32_t word) {
  const float x = -static_cast<float>(word >> 8) * 0x1p-18f;  // (-64, 0]
  return {canon::Noise(0x123456789ABCDEFull + word, 3, static_cast<int32_t>(word >> 20),
                       static_cast<int32_t>(word & 0xFFFFF)),
          canon::Exp(x),
          canon::Ex2(x),
          canon::Log(canon::FromBits(word & 0x7FFFFFFFu)),
          canon::Mass(x, 0.0f),
          canon::Gap(x / 4.0f, 0.0f),
          canon::WeightedGap(canon::Mass(x / 4.0f, 0.0f), canon::Gap(x / 4.0f, 0.0f)),
          canon::MeanGap(uint64_t{word} << 9, (uint64_t{word} << 7) + 12345),
          canon::MassTarget(0.7f, uint64_t{word} << 26)};
}
__global__ void EvaluateKernel(const uint32_t* words, int count, Formulas* to) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) to[i] = Evaluate(words[i]);
}

TEST(SamplerFormulasGpuTest, FormulasAreTheHosts) {
  constexpr int kCount = 1 << 16;
  std::mt19937_64 random(Seed() + 5);
  std::vector<uint32_t> words(kCount);
  for (uint32_t& word : words) word = static_cast<uint32_t>(random());
  const DeviceBuffer<uint32_t> from(words);
  const DeviceBuffer<Formulas> to(kCount);
  EvaluateKernel<<<kCount / 256, 256, 0, Stream()>>>(from.get(), kCount, to.get());
  EXPECT_CUDA(cudaGetLastError());
  Finish();
  const std::vector<Formulas> got = to.Download();
  for (size_t i = 0; i < got.size() && !HasFailure(); ++i) {
    const Formulas want = Evaluate(words[i]);
    const auto same = [](float a, float b) { return a == b || (a != a && b != b); };
    EXPECT_TRUE(same(got[i].noise, want.noise)) << words[i];
    EXPECT_TRUE(same(got[i].exp, want.exp)) << words[i];
    EXPECT_TRUE(same(got[i].ex2, want.ex2)) << words[i];
    EXPECT_TRUE(same(got[i].log, want.log)) << words[i];
    EXPECT_EQ(got[i].mass, want.mass) << words[i];
    EXPECT_EQ(got[i].gap, want.gap) << words[i];
    EXPECT_EQ(got[i].weighted, want.weighted) << words[i];
    EXPECT_EQ(got[i].mean, want.mean) << words[i];
    EXPECT_EQ(got[i].target, want.target) << words[i];
  }
}

TEST_P(SamplerGpuTest, RefusesWhatItCannotDo) {
  cuda::SamplerArgs args;
  args.vocab = cuda::kSampleVocabMax + 1;
  args.count = 1;
  EXPECT_EQ(Sample(MakeContext(), args), cudaErrorInvalidValue);
  args.vocab = 4096;
  args.count = 0;
  EXPECT_CUDA(Sample(MakeContext(), args));
}

// There are no rows, so nothing is launched; SampleCluster would refuse every device except sm_90.
TEST(SamplerPickGpuTest, FromSm80OnThereIsAKernel) {
  cuda::SamplerArgs args;
  args.vocab = 4096;
  LaunchContext context = MakeContext();
  for (const int sm : {80, 89, 90, 100}) {
    context.sm = sm;
    EXPECT_CUDA(cuda::Sample(context, args));
  }
  context.sm = 75;
  EXPECT_EQ(cuda::Sample(context, args), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace fathom::gpu_test
