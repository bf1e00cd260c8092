// The unfused CUDA ops against the slow reference kernels, bit for bit, and against float64.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/linear/paired_rows.h"
#include "kernels/cuda/rows/embedding.h"
#include "kernels/cuda/rows/non_finite.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/reference.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::ExpectNear;
using gpu_test::ExpectSameBits;
using gpu_test::Finish;
using gpu_test::FromFloat;
using gpu_test::HalfUlp;
using gpu_test::MakeContext;
using gpu_test::RandomNormal;
using gpu_test::Stream;
using gpu_test::ToFloat;

template <class T>
class OpsTest : public testing::Test {};
TYPED_TEST_SUITE(OpsTest, gpu_test::ElementTypes);

std::string Name(const char* op, std::initializer_list<int> shape) {
  std::string name = op;
  for (const int i : shape) {
    name += ' ';
    name += std::to_string(i);
  }
  return name;
}

// --- Norm ---

enum class NormMode { kPlain, kAddend, kGather, kOnlyAdd };

template <class T>
void CheckNorm(int rows, int width, float deviation, NormMode mode) {
  const std::string what = Name("norm", {rows, width, static_cast<int>(mode)});
  const auto x = RandomNormal<T>(int64_t{rows} * width, deviation, width);
  const auto addend = RandomNormal<T>(int64_t{rows} * width, deviation, width + 1);
  const auto w = RandomNormal<float>(width, 0.5f, width + 2, 1.0f);
  DeviceBuffer<T> x1(x), x2(x), a(addend), y1(int64_t{rows} * width), y2(int64_t{rows} * width);
  DeviceBuffer<float> weight(w);
  std::vector<int32_t> order(rows);
  for (int i = 0; i < rows; ++i) order[i] = (i * 7 + 3) % rows;
  DeviceBuffer<int32_t> gather(order);
  RmsNormArgs args;
  args.dtype = DTypeOf<T>();
  args.weight = weight.get();
  args.eps = 1e-6f;
  args.rows = rows, args.width = width;
  if (mode == NormMode::kGather) args.gather = gather.get();
  if (mode == NormMode::kAddend || mode == NormMode::kOnlyAdd) args.addend = a.get();
  args.x = x1.get(), args.y = mode == NormMode::kOnlyAdd ? nullptr : y1.get();
  EXPECT_CUDA(RmsNorm(MakeContext(width % 16 == 0), args));
  args.x = x2.get(), args.y = mode == NormMode::kOnlyAdd ? nullptr : y2.get();
  EXPECT_CUDA(RefRmsNorm(Stream(), args));
  ExpectSameBits(x1, x2, what + ": x", width);
  if (mode == NormMode::kOnlyAdd) return;
  ExpectSameBits(y1, y2, what + ": y", width);
  // The error of two fp32 roundings, of the sum, and of one rounding to T.
  const auto in = x1.Download();
  std::vector<double> want(y1.count());
  for (int r = 0; r < rows; ++r) {
    const T* row = in.data() + int64_t{mode == NormMode::kGather ? order[r] : r} * width;
    double sum = 0;
    for (int i = 0; i < width; ++i) sum += double{ToFloat(row[i])} * ToFloat(row[i]);
    const double factor = 1 / std::sqrt(sum / width + 1e-6);
    for (int i = 0; i < width; ++i) want[int64_t{r} * width + i] = ToFloat(row[i]) * factor * w[i];
  }
  ExpectNear(y1.Download(), want, HalfUlp<T>() * 1.01 + 1e-5, 1e-7, what + " against float64");
}

TYPED_TEST(OpsTest, NormEqualsTheRecipe) {
  constexpr int kWidths[] = {8,    24,   64,   224,  256,  704,  1024, 1032,
                             2048, 3584, 4096, 5120, 7168, 8192, 8200, 12296};
  for (const int width : gpu_test::Cases(kWidths)) {
    for (const int rows : {1, 3, 37}) {
      for (const NormMode mode :
           {NormMode::kPlain, NormMode::kAddend, NormMode::kGather, NormMode::kOnlyAdd}) {
        CheckNorm<TypeParam>(rows, width, 1.0f, mode);
      }
    }
  }
  CheckNorm<TypeParam>(2048, 4096, 0.02f, NormMode::kAddend);
  CheckNorm<TypeParam>(5, 4096, 1e-3f, NormMode::kPlain);
  CheckNorm<TypeParam>(5, 4096, 300.0f, NormMode::kAddend);
}

TYPED_TEST(OpsTest, NormRefusesWhatItDoesNotDo) {
  RmsNormArgs args;
  args.dtype = DTypeOf<TypeParam>();
  args.rows = 1, args.width = 12;
  EXPECT_EQ(RmsNorm(MakeContext(), args), cudaErrorInvalidValue);
  args.width = 16, args.dtype = DType::kF32;
  EXPECT_EQ(RmsNorm(MakeContext(), args), cudaErrorInvalidValue);
}

// --- Rotary embedding and KV blocks ---

struct RopeShape {
  int heads, kv_heads, head_dim;
};
constexpr RopeShape kRopeShapes[] = {{32, 32, 128}, {40, 40, 128}, {56, 8, 128}, {28, 4, 128},
                                     {64, 8, 128},  {4, 2, 64},    {7, 1, 64},   {3, 3, 64}};
constexpr int kContext = 300;
constexpr int kPoolBlocks = 9;
constexpr int kRopeRows = 19;

struct RopeTables {
  std::vector<float> cos, sin;
};
// `attention_factor` is YaRN's; it makes rotated vectors longer or shorter.
RopeTables MakeTables(int head_dim, double attention_factor = 1.0) {
  RopeTables t;
  for (int p = 0; p < kContext; ++p) {
    for (int i = 0; i < head_dim / 2; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / head_dim);
      t.cos.push_back(static_cast<float>(std::cos(angle) * attention_factor));
      t.sin.push_back(static_cast<float>(std::sin(angle) * attention_factor));
    }
  }
  return t;
}

// The planes and the q of one run.
template <class T>
struct RopeOut {
  explicit RopeOut(const RopeShape& s)
      : keys(int64_t{kPoolBlocks} * s.kv_heads * kBlockTokens * s.head_dim),
        values(keys.count()),
        q(int64_t{kRopeRows} * s.heads * s.head_dim),
        faults(kRopeRows) {
    for (DeviceBuffer<T>* b : {&keys, &values, &q}) b->Set(0x3C);  // Finite, unlike new memory.
    faults.Zero();
  }
  DeviceBuffer<T> keys, values, q;
  DeviceBuffer<int32_t> faults;
};

// Rows 5, 6 and 7 have a block beyond the pool, a negative KV index, and a position beyond the
// table.
template <class T>
void CheckRope(const RopeShape& s, bool q_norm, bool k_norm) {
  const std::string what = Name("rope", {s.heads, s.kv_heads, s.head_dim, q_norm, k_norm});
  const int width = (s.heads + 2 * s.kv_heads) * s.head_dim;
  const DeviceBuffer<T> qkv(RandomNormal<T>(int64_t{kRopeRows} * width, 1.5f, width));
  const RopeTables t = MakeTables(s.head_dim, k_norm ? 1.0 : 1.2);
  const DeviceBuffer<float> cos(t.cos), sin(t.sin);
  const DeviceBuffer<float> qn(RandomNormal<float>(s.head_dim, 0.5f, 1, 1.0f));
  const DeviceBuffer<float> kn(RandomNormal<float>(s.head_dim, 0.5f, 2, 1.0f));
  std::vector<int32_t> slots(kRopeRows), positions(kRopeRows);
  for (int r = 0; r < kRopeRows; ++r) {
    slots[r] = (r * 131 + 7) % (kPoolBlocks * kBlockTokens);
    positions[r] = (r * 37) % kContext;
  }
  slots[5] = kPoolBlocks * kBlockTokens, slots[6] = -1, positions[7] = kContext;
  const DeviceBuffer<int32_t> device_slots(slots), device_positions(positions);
  RopeKvWriteArgs args;
  args.dtype = DTypeOf<T>();
  args.qkv = qkv.get();
  args.q_norm = q_norm ? qn.get() : nullptr;
  args.k_norm = k_norm ? kn.get() : nullptr;
  args.eps = 1e-6f;
  args.kv.kv_slots = device_slots.get(), args.kv.positions = device_positions.get();
  args.kv.cos = cos.get(), args.kv.sin = sin.get();
  args.kv.pool_blocks = kPoolBlocks, args.kv.context = kContext;
  args.rows = kRopeRows, args.heads = s.heads, args.kv_heads = s.kv_heads;
  args.head_dim = s.head_dim;
  RopeOut<T> got(s), want(s);
  for (RopeOut<T>* out : {&got, &want}) {
    args.kv.keys = out->keys.get(), args.kv.values = out->values.get();
    args.kv.faults = out->faults.get(), args.q = out->q.get();
    EXPECT_CUDA(out == &got ? RopeKvWrite(MakeContext(), args) : RefRopeKvWrite(Stream(), args));
  }
  ExpectSameBits(got.q, want.q, what + ": q", s.heads * s.head_dim);
  ExpectSameBits(got.keys, want.keys, what + ": keys", s.head_dim);
  ExpectSameBits(got.values, want.values, what + ": values", s.head_dim);
  std::vector<int32_t> faults(kRopeRows, 0);
  faults[5] = faults[6] = faults[7] = kFaultBlockRange;
  EXPECT_EQ(got.faults.Download(), faults) << what;
  EXPECT_EQ(want.faults.Download(), faults) << what;
}

TYPED_TEST(OpsTest, RotaryAndKvWritesEqualTheRecipe) {
  for (const RopeShape& s : kRopeShapes) {
    CheckRope<TypeParam>(s, false, false);
    CheckRope<TypeParam>(s, true, true);
  }
  CheckRope<TypeParam>(kRopeShapes[2], true, false);
  CheckRope<TypeParam>(kRopeShapes[5], false, true);
}

// One head, by hand: the order of the input, the rotation, and the place of a key.
TYPED_TEST(OpsTest, RotaryAgainstFloat64) {
  using T = TypeParam;
  constexpr int kDim = 128, kHalf = 64, kPosition = 77, kSlot = 3 * kBlockTokens + 11;
  const auto qkv = RandomNormal<T>(3 * kDim, 1.0f, 5);
  const DeviceBuffer<T> in(qkv);
  const RopeTables t = MakeTables(kDim);
  const DeviceBuffer<float> cos(t.cos), sin(t.sin);
  const RopeShape shape = {1, 1, kDim};
  RopeOut<T> out(shape);
  const DeviceBuffer<int32_t> slots(std::vector<int32_t>{kSlot});
  const DeviceBuffer<int32_t> positions(std::vector<int32_t>{kPosition});
  RopeKvWriteArgs args;
  args.dtype = DTypeOf<T>();
  args.qkv = in.get();
  args.kv = {out.keys.get(), out.values.get(), slots.get(), positions.get(), cos.get(),
             sin.get(),      out.faults.get(), kPoolBlocks, kContext};
  args.q = out.q.get();
  args.rows = args.heads = args.kv_heads = 1;
  args.head_dim = kDim;
  EXPECT_CUDA(RopeKvWrite(MakeContext(), args));
  Finish();
  std::vector<double> want_q(kDim), want_k(kDim);
  for (int i = 0; i < kHalf; ++i) {
    const double angle = kPosition * std::pow(10000.0, -2.0 * i / kDim);
    for (int head = 0; head < 2; ++head) {
      const double a = ToFloat(qkv[head * kDim + PairedRow(i, kHalf)]);
      const double b = ToFloat(qkv[head * kDim + PairedRow(i + kHalf, kHalf)]);
      auto& want = head == 0 ? want_q : want_k;
      want[i] = a * std::cos(angle) - b * std::sin(angle);
      want[i + kHalf] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  const auto q = out.q.Download(), keys = out.keys.Download(), values = out.values.Download();
  const auto at = [&](const std::vector<T>& v, int64_t begin) {
    return std::vector<T>(v.begin() + begin, v.begin() + begin + kDim);
  };
  ExpectNear(at(q, 0), want_q, HalfUlp<T>() * 1.01, 1e-5, "q");
  ExpectNear(at(keys, int64_t{kSlot} * kDim), want_k, HalfUlp<T>() * 1.01, 1e-5, "key");
  ExpectSameBits(at(values, int64_t{kSlot} * kDim), at(qkv, 2 * kDim), "value");
}

// --- silu * mul ---

TYPED_TEST(OpsTest, SiluMulEqualsTheRecipe) {
  using T = TypeParam;
  for (const int ffn : {8, 224, 704, 2056, 11008, 13824, 19200}) {
    for (const int rows : {1, 5, 65}) {
      const std::string what = Name("silu_mul", {rows, ffn});
      auto in = RandomNormal<T>(int64_t{rows} * 2 * ffn, 4.0f, ffn);
      in[0] = FromFloat<T>(-200.0f), in[1] = FromFloat<T>(200.0f), in[2] = FromFloat<T>(-0.0f);
      const DeviceBuffer<T> gate_up(in);
      DeviceBuffer<T> got(int64_t{rows} * ffn), want(int64_t{rows} * ffn);
      SiluMulArgs args;
      args.dtype = DTypeOf<T>();
      args.gate_up = gate_up.get();
      args.rows = rows, args.ffn = ffn;
      args.y = got.get();
      EXPECT_CUDA(SiluMul(MakeContext(), args));
      args.y = want.get();
      EXPECT_CUDA(RefSiluMul(Stream(), args));
      ExpectSameBits(got, want, what, ffn);
      std::vector<double> exact(got.count());
      for (int64_t i = 0; i < got.count(); ++i) {
        const T* row = in.data() + i / ffn * 2 * ffn;
        const double gate = ToFloat(row[PairedRow(i % ffn, ffn)]);
        const double up = ToFloat(row[PairedRow(i % ffn + ffn, ffn)]);
        exact[i] = gate / (1 + std::exp(-gate)) * up;
      }
      const double denormal = std::is_same_v<T, __half> ? 1e-7 : 1e-30;
      ExpectNear(got.Download(), exact, HalfUlp<T>() * 1.01 + 1e-5, denormal, what + " float64");
    }
  }
}

// --- Embedding ---

TYPED_TEST(OpsTest, EmbeddingTakesTokensAndSlots) {
  using T = TypeParam;
  struct Shape {
    int vocab, hidden;
  };
  for (const auto [vocab, hidden] : {Shape{4096, 256}, {100, 224}, {320, 4096}, {64, 8}}) {
    const auto table = RandomNormal<T>(int64_t{vocab} * hidden, 1.0f, hidden);
    const std::vector<int32_t> slots = {5, vocab, vocab - 1, -1};
    // The first and the last id, an id past the end, slots, a slot with an id out of range, a slot
    // without a sample, a slot beyond the slots.
    const std::vector<int32_t> tokens = {0, vocab - 1, vocab, -1, -3, -2, -4, -5, 7, INT32_MIN};
    const std::vector<int32_t> want_ids = {0, vocab - 1, -1, 5, vocab - 1, -1, -1, -1, 7, -1};
    const int rows = static_cast<int>(tokens.size());
    const DeviceBuffer<T> device_table(table);
    const DeviceBuffer<int32_t> device_tokens(tokens), device_slots(slots);
    DeviceBuffer<int32_t> faults(rows);
    faults.Zero();
    DeviceBuffer<T> x(int64_t{rows} * hidden);
    EmbeddingArgs args;
    args.dtype = DTypeOf<T>();
    args.table = device_table.get(), args.tokens = device_tokens.get();
    args.slot_tokens = device_slots.get(), args.faults = faults.get(), args.x = x.get();
    args.rows = rows, args.hidden = hidden, args.vocab = vocab, args.slots = 4;
    EXPECT_CUDA(Embedding(MakeContext(), args));
    Finish();
    std::vector<T> want(x.count(), FromFloat<T>(0.0f));
    std::vector<int32_t> want_faults(rows, 0);
    for (int r = 0; r < rows; ++r) {
      if (want_ids[r] < 0) {
        want_faults[r] = kFaultTokenRange;
      } else {
        std::copy_n(table.begin() + int64_t{want_ids[r]} * hidden, hidden,
                    want.begin() + int64_t{r} * hidden);
      }
    }
    ExpectSameBits(x.Download(), want, Name("embedding", {vocab, hidden}), hidden);
    EXPECT_EQ(faults.Download(), want_faults);
  }
}

// --- Non-finite values ---

template <class T>
class NonFiniteTest : public testing::Test {};
using AllTypes = testing::Types<__nv_bfloat16, __half, float>;
TYPED_TEST_SUITE(NonFiniteTest, AllTypes);

template <class T>
uint64_t Scan(const DeviceBuffer<T>& data, int64_t base) {
  DeviceBuffer<uint64_t> first(std::vector<uint64_t>{kNoIndex});
  EXPECT_CUDA(
      ScanNonFinite(MakeContext(), {DTypeOf<T>(), data.get(), data.count(), base, first.get()}));
  Finish();
  return first.Download()[0];
}

TYPED_TEST(NonFiniteTest, ScanFindsTheFirst) {
  using T = TypeParam;
  const float bad[] = {INFINITY, -INFINITY, NAN};
  const float largest = std::is_same_v<T, __half> ? 65504.0f : 3.38e38f;
  for (const int64_t count : {1, 7, 8, 9, 1000, 4097, 3000003}) {
    auto values = RandomNormal<T>(count, 1.0f, count);
    values[count / 2] = FromFloat<T>(largest);
    DeviceBuffer<T> data(values);
    EXPECT_EQ(Scan(data, 5), kNoIndex) << count;
    int which = 0;
    for (const int64_t at :
         {count - 1, count * 2 / 3, count / 3 + 1, count / 3, int64_t{1}, int64_t{0}}) {
      if (at >= count) continue;
      values[at] = FromFloat<T>(bad[which++ % 3]);  // Each is at a lower index than the one before.
      data.Upload(values);
      EXPECT_EQ(Scan(data, 5), static_cast<uint64_t>(at + 5)) << "of " << count;
    }
  }
}

TYPED_TEST(NonFiniteTest, CheckRowsMarksRowsAndKeepsTheFirstCode) {
  using T = TypeParam;
  constexpr int kRows = 9;
  for (const int width : {8, 224, 4096, 11008}) {
    auto values = RandomNormal<T>(int64_t{kRows} * width, 1.0f, width);
    values[int64_t{2} * width] = FromFloat<T>(NAN);
    values[int64_t{5} * width + width - 1] = FromFloat<T>(-INFINITY);
    values[int64_t{8} * width + width / 2] = FromFloat<T>(INFINITY);
    const DeviceBuffer<T> x(values);
    DeviceBuffer<int32_t> faults(kRows), codes(std::vector<int32_t>{0, 0, 0, 0, 0, 3, 0, 0, 0});
    faults.Zero();
    CheckRowsArgs args = {DTypeOf<T>(), x.get(), 42, faults.get(), codes.get(), kRows, width};
    EXPECT_CUDA(CheckRows(MakeContext(), args));
    args.faults = nullptr, args.code = 43;
    EXPECT_CUDA(CheckRows(MakeContext(), args));
    Finish();
    EXPECT_EQ(faults.Download(), (std::vector<int32_t>{0, 0, 1, 0, 0, 1, 0, 0, 1}));
    EXPECT_EQ(codes.Download(), (std::vector<int32_t>{0, 0, 42, 0, 0, 3, 0, 0, 42}));
  }
}

// --- Programmatic dependent launch ---

// A chain of ops, each of which may start while the previous one still runs.
TYPED_TEST(OpsTest, ChainedOpsEqualUnchained) {
  using T = TypeParam;
  constexpr int kRows = 64, kWidth = 4096;
  const auto x = RandomNormal<T>(int64_t{kRows} * kWidth, 1.0f, 9);
  const DeviceBuffer<float> weight(RandomNormal<float>(kWidth, 0.5f, 10, 1.0f));
  DeviceBuffer<T> results[2] = {DeviceBuffer<T>(x.size()), DeviceBuffer<T>(x.size())};
  for (const bool dependent : {false, true}) {
    const LaunchContext context = MakeContext(dependent);
    DeviceBuffer<T> residual(x), normed(x.size()), half(x.size() / 2);
    RmsNormArgs norm = {DTypeOf<T>(), residual.get(), nullptr, weight.get(), nullptr,
                        normed.get(), 1e-6f,          kRows,   kWidth};
    for (int i = 0; i < 20; ++i) {
      EXPECT_CUDA(RmsNorm(context, norm));
      EXPECT_CUDA(SiluMul(context, {DTypeOf<T>(), normed.get(), half.get(), kRows, kWidth / 2}));
      RmsNormArgs add = {DTypeOf<T>(), residual.get(), half.get(), weight.get(), nullptr,
                         nullptr,      1e-6f,          kRows / 2,  kWidth};
      EXPECT_CUDA(RmsNorm(context, add));
    }
    EXPECT_CUDA(cudaMemcpyAsync(results[dependent].get(), residual.get(), residual.bytes(),
                                cudaMemcpyDeviceToDevice, Stream()));
    Finish();
  }
  ExpectSameBits(results[1], results[0], "a chain of 60 ops", kWidth);
}

}  // namespace
}  // namespace fathom::kernels::cuda
