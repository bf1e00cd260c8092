// GEMMs of up to 128 rows against the reference: equal bits for every op, row count and tile, alone
// and chained.
#include "kernels/cuda/linear/medium.h"

#include <algorithm>
#include <optional>

#include "kernels/cuda/rows/rmsnorm.h"
#include "tests/kernels/cuda/fused_test.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::Cases;
using gpu_test::CountDifferent;
using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::ElementTypes;
using gpu_test::ExpectSameBits;
using gpu_test::FewerHeads;
using gpu_test::FillNormal;
using gpu_test::Finish;
using gpu_test::FromFloat;
using gpu_test::Heads;
using gpu_test::MakeContext;
using gpu_test::NormAfterCase;
using gpu_test::RandomNormal;
using gpu_test::Stream;
using gpu_test::Times;
using gpu_test::Width;

MediumDevice Device() {
  MediumDevice device;
  EXPECT_CUDA(QueryMediumDevice(&device));
  return device;
}

template <class T>
class MediumTest : public testing::Test {
 protected:
  static constexpr DType kType = DTypeOf<T>();

  // The weight and x of a shape, and their GEMM by the reference.
  struct Case {
    Case(int rows_, int n_, int k_)
        : rows(rows_), n(n_), k(k_), w(int64_t{n_} * k_), x(int64_t{(rows_ + 63) / 64 * 64} * k_) {
      FillNormal(w, 0.03f, 1);
      FillNormal(x, 1.0f, 2);
    }
    void Reference(void* y, bool float_out, const float* bias) {
      ASSERT_CUDA(RefProduct(Stream(), {.dtype = kType,
                                        .w = w.get(),
                                        .x = x.get(),
                                        .bias = bias,
                                        .y = y,
                                        .float_out = float_out,
                                        .rows = rows,
                                        .n = n,
                                        .k = k}));
    }
    int rows, n, k;
    DeviceBuffer<T> w, x;
  };

  // The configuration of the next weights instead of the picked one.
  std::optional<MediumConfig> config_;

  MediumWeight Prepare(MediumOp op, const Case& c) {
    MediumWeight weight;
    if (config_) {
      EXPECT_CUDA(PrepareMediumWith(op, {*config_, *config_}, kType, c.w.get(), c.n, c.k, &weight));
      return weight;
    }
    EXPECT_CUDA(PrepareMedium(op, Device(), kType, c.w.get(), c.n, c.k, &weight));
    return weight;
  }

  std::string Name(const char* op, const Case& c, const MediumWeight& weight) {
    return std::string(op) + " rows " + std::to_string(c.rows) + ", n " + std::to_string(c.n) +
           ", k " + std::to_string(c.k) + ": " + ToString(weight.ConfigFor(c.rows));
  }

  void Residual(int rows, int n, int k) {
    Case c(rows, n, k);
    const MediumWeight weight = Prepare(MediumOp::kResidual, c);
    DeviceBuffer<T> want(int64_t{rows} * n), got(int64_t{rows} * n), y(int64_t{rows} * n);
    FillNormal(want, 1.0f, 3);
    FillNormal(got, 1.0f, 3);
    c.Reference(y.get(), false, nullptr);
    DeviceBuffer<T> partial(int64_t{rows} * n);
    ASSERT_CUDA(MediumPartial(MakeContext(), weight, c.x.get(), rows, partial.get()));
    ExpectSameBits(partial, y, Name("partial", c, weight), n);
    gpu_test::Add(want.get(), y.get(), want.count());
    ASSERT_CUDA(MediumResidual(MakeContext(), weight, c.x.get(), rows, got.get()));
    ExpectSameBits(got, want, Name("residual", c, weight), n);
    if (!NormAfterCase<T>::Does(n)) return;
    NormAfterCase<T> norm(rows, n, 5);
    FillNormal(got, 1.0f, 3);
    ASSERT_CUDA(MediumResidual(MakeContext(), weight, c.x.get(), rows, got.get(), norm.Args()));
    ExpectSameBits(got, want, Name("normed residual", c, weight), n);
    norm.Check(got.get(), Name("residual", c, weight));
  }

  void GateUp(int rows, int n, int k) {
    Case c(rows, n, k);
    const MediumWeight weight = Prepare(MediumOp::kGateUp, c);
    DeviceBuffer<T> both(int64_t{rows} * n), want(int64_t{rows} * n / 2),
        got(int64_t{rows} * n / 2);
    c.Reference(both.get(), false, nullptr);
    ASSERT_CUDA(RefSiluMul(
        Stream(),
        {.dtype = kType, .gate_up = both.get(), .y = want.get(), .rows = rows, .ffn = n / 2}));
    ASSERT_CUDA(MediumGateUp(MakeContext(), weight, c.x.get(), rows, got.get()));
    ExpectSameBits(got, want, Name("gate_up", c, weight), n / 2);
  }

  void Head(int rows, int n, int k) {
    Case c(rows, n, k);
    const MediumWeight weight = Prepare(MediumOp::kHead, c);
    DeviceBuffer<float> want(int64_t{rows} * n), got(int64_t{rows} * n);
    c.Reference(want.get(), true, nullptr);
    ASSERT_CUDA(MediumHead(MakeContext(), weight, c.x.get(), rows, got.get()));
    Finish();
    EXPECT_EQ(CountDifferent(got.get(), want.get(), got.count()), 0) << Name("head", c, weight);
  }

  void Qkv(int rows, const Heads& published, int k, bool with_bias) {
    const auto [heads, kv_heads, head_dim] = FewerHeads(published);
    const int n = (heads + 2 * kv_heads) * head_dim, context = 600;
    const int pool_blocks = rows + 3;
    Case c(rows, n, k);
    const MediumWeight weight = Prepare(MediumOp::kQkv, c);
    DeviceBuffer<float> bias(RandomNormal<float>(n, 1.0f, 4));
    std::vector<float> cos, sin;
    for (int p = 0; p < context; ++p) {
      for (int i = 0; i < head_dim / 2; ++i) {
        cos.push_back(std::cos(p * std::pow(10000.0, -2.0 * i / head_dim)));
        sin.push_back(std::sin(p * std::pow(10000.0, -2.0 * i / head_dim)));
      }
    }
    DeviceBuffer<float> cos_table(cos), sin_table(sin);
    std::vector<int32_t> positions, slots;
    for (int r = 0; r < rows; ++r) {
      positions.push_back((r * 37) % context);
      slots.push_back((1 + (r * 5 + 1) % (pool_blocks - 1)) * 64 + r % 64);
    }
    if (rows > 2) slots[2] = pool_blocks * 64;  // A block that does not exist.
    DeviceBuffer<int32_t> position(positions), slot(slots), got_faults(rows), want_faults(rows);
    got_faults.Zero();
    want_faults.Zero();
    const int64_t plane = int64_t{pool_blocks} * kv_heads * 64 * head_dim;
    DeviceBuffer<T> got_k(plane), got_v(plane), want_k(plane), want_v(plane);
    for (auto* buffer : {&got_k, &got_v, &want_k, &want_v}) buffer->Zero();
    DeviceBuffer<T> qkv(int64_t{rows} * n), got_q(int64_t{rows} * heads * head_dim),
        want_q(int64_t{rows} * heads * head_dim);
    got_q.Zero();  // The q of a faulted row is undefined.
    want_q.Zero();
    const auto target = [&](DeviceBuffer<T>& keys, DeviceBuffer<T>& values,
                            DeviceBuffer<int32_t>& faults) {
      return KvTarget{keys.get(),      values.get(), slot.get(),  position.get(), cos_table.get(),
                      sin_table.get(), faults.get(), pool_blocks, context};
    };
    c.Reference(qkv.get(), false, with_bias ? bias.get() : nullptr);
    ASSERT_CUDA(RefRopeKvWrite(Stream(), {.dtype = kType,
                                          .qkv = qkv.get(),
                                          .kv = target(want_k, want_v, want_faults),
                                          .q = want_q.get(),
                                          .rows = rows,
                                          .heads = heads,
                                          .kv_heads = kv_heads,
                                          .head_dim = head_dim}));
    MediumQkvArgs args;
    args.x = c.x.get();
    args.rows = rows;
    args.bias = with_bias ? bias.get() : nullptr;
    args.kv = target(got_k, got_v, got_faults);
    args.q = got_q.get();
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_dim = head_dim;
    ASSERT_CUDA(MediumQkv(MakeContext(), weight, args));
    const std::string name = Name("qkv", c, weight);
    ExpectSameBits(got_k, want_k, name + " keys");
    ExpectSameBits(got_v, want_v, name + " values");
    ExpectSameBits(got_faults, want_faults, name + " faults");
    auto got = got_q.Download(), want = want_q.Download();
    if (rows > 2) {  // Both leave the faulted row undefined.
      const int64_t width = int64_t{heads} * head_dim;
      std::fill_n(got.begin() + 2 * width, width, FromFloat<T>(0));
      std::fill_n(want.begin() + 2 * width, width, FromFloat<T>(0));
    }
    ExpectSameBits(got, want, name + " q", int64_t{heads} * head_dim);
  }
};
TYPED_TEST_SUITE(MediumTest, ElementTypes);

TYPED_TEST(MediumTest, ResidualOfPublishedShapes) {
  for (const int rows : Cases({1, 17, 63, 64, 65, 100, 128})) {
    this->Residual(rows, Width(4096), Width(4096));
    this->Residual(rows, Width(4096), Width(11008));
  }
  for (const int rows : {33, 128}) {
    this->Residual(rows, Width(5120), Width(13824));
    this->Residual(rows, Width(7168), Width(19200));
    this->Residual(rows, Width(8192), Width(8192));
  }
}

TYPED_TEST(MediumTest, ResidualOfOddShapes) {
  for (const int rows : {5, 16, 128}) {
    this->Residual(rows, 256, 704);
    this->Residual(rows, 256, 64);
    this->Residual(rows, Width(3584), Width(18944));
    this->Residual(rows, 48, 192);
  }
}

TYPED_TEST(MediumTest, GateUp) {
  for (const int rows : Cases({2, 64, 77, 128})) {
    this->GateUp(rows, Width(22016), Width(4096));
    this->GateUp(rows, 1408, 256);
  }
  this->GateUp(50, Width(27648), Width(5120));
  this->GateUp(128, Width(38400), Width(7168));
}

TYPED_TEST(MediumTest, Head) {
  for (const int rows : {3, 64, 128}) {
    this->Head(rows, Width(32000), Width(5120));
    this->Head(rows, Width(4096), 256);
  }
  this->Head(60, Width(102400), Width(4096));
}

TYPED_TEST(MediumTest, Qkv) {
  for (const int rows : Cases({1, 40, 64, 65, 128})) {
    this->Qkv(rows, {32, 32, 128}, Width(4096), false);
    this->Qkv(rows, {4, 2, 64}, 256, true);
  }
  this->Qkv(128, {56, 8, 128}, Width(7168), false);
  this->Qkv(30, {28, 4, 128}, Width(3584), true);
  this->Qkv(90, {40, 40, 128}, Width(5120), false);
}

// Every tile with every cluster, in one pass or two, with tiles beyond n in the last cluster.
TYPED_TEST(MediumTest, EveryTileAndCluster) {
  const auto device = Device();
  for (const MediumOp op :
       {MediumOp::kQkv, MediumOp::kResidual, MediumOp::kGateUp, MediumOp::kHead}) {
    for (const int tile : Cases(MediumTiles(op))) {
      for (const int cluster : {2, 4, 8}) {
        for (const int rows : {40, 128}) {
          const int n = 128 * (tile / 8 + 1), k = 1088;
          this->config_ = MediumWithTile({op, rows, n, k}, device, tile, cluster);
          ASSERT_TRUE(this->config_.has_value());
          if (cluster == 4) {
            this->config_->passes = 2;
            this->config_->grid = (this->config_->grid / 2 + cluster - 1) / cluster * cluster;
          }
          if (op == MediumOp::kResidual) this->Residual(rows, n, k);
          if (op == MediumOp::kGateUp) this->GateUp(rows, n, k);
          if (op == MediumOp::kHead) this->Head(rows, n, k);
          if (op == MediumOp::kQkv) this->Qkv(rows, {n / 128 - 2, 1, 128}, k, cluster == 4);
          if (this->HasFailure()) return;
        }
      }
    }
  }
}

// The ffn of four layers, many times: each GEMM starts before the previous one has ended, and norms
// are at the ends of GEMMs. The bits equal those of one op after the other.
TYPED_TEST(MediumTest, ChainedLaunchesKeepTheirBits) {
  using T = TypeParam;
  const int hidden = Width(4096), ffn_width = Width(2048);
  for (const int rows : {17, 64, 128}) {
    typename MediumTest<T>::Case up(rows, 2 * ffn_width, hidden), down(rows, hidden, ffn_width);
    const MediumWeight w_up = this->Prepare(MediumOp::kGateUp, up);
    const MediumWeight w_down = this->Prepare(MediumOp::kResidual, down);
    const int64_t padded = int64_t{(rows + 63) / 64 * 64};  // The rows that GEMMs read.
    DeviceBuffer<T> ffn(padded * ffn_width), x(padded * hidden);
    NormAfterCase<T> norm(static_cast<int>(padded), hidden, 5);
    std::vector<T> first, first_normed;
    for (int turn = 0; turn < Times(30); ++turn) {
      const LaunchContext context = MakeContext(turn > 0);
      FillNormal(x, 1.0f, 9);
      ffn.Poison();
      norm.y.Poison();
      const auto separately = [&] {
        ASSERT_CUDA(RmsNorm(context, {.dtype = DTypeOf<T>(),
                                      .x = x.get(),
                                      .weight = norm.weight.get(),
                                      .y = norm.y.get(),
                                      .eps = norm.kEps,
                                      .rows = rows,
                                      .width = hidden}));
      };
      separately();
      for (int layer = 0; layer < 4; ++layer) {
        ASSERT_CUDA(MediumGateUp(context, w_up, norm.y.get(), rows, ffn.get()));
        ASSERT_CUDA(MediumResidual(context, w_down, ffn.get(), rows, x.get(),
                                   turn > 0 ? norm.Args() : NormAfter{}));
        if (turn == 0) separately();
      }
      Finish();
      std::vector<T> got = x.Download(), normed = norm.y.Download();
      got.resize(size_t(rows) * hidden);
      normed.resize(size_t(rows) * hidden);
      if (turn == 0) first = got, first_normed = normed;
      const std::string what = std::to_string(rows) + " rows, turn " + std::to_string(turn);
      ExpectSameBits(got, first, what, hidden);
      ExpectSameBits(normed, first_normed, what + ", normed", hidden);
    }
  }
}

}  // namespace
}  // namespace fathom::kernels::cuda
