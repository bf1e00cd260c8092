// GEMMs of up to 16 rows, with everything that is fused around them, against the reference: equal
// bits for every op, row count and configuration, alone and chained with overlapping launches.
#include "kernels/cuda/linear/skinny.h"

#include <functional>
#include <memory>

#include "kernels/cuda/rows/rmsnorm.h"
#include "tests/kernels/cuda/fused_test.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::Add;
using gpu_test::Cases;
using gpu_test::CountDifferent;
using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::ElementTypes;
using gpu_test::ExpectNear;
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
using gpu_test::ToFloat;
using gpu_test::Width;

constexpr float kEps = 1e-6f;
constexpr int kContext = 600;

SkinnyDevice Device() {
  const LaunchContext context = MakeContext();
  return {context.sm, context.sms, gpu_test::SharedBytesMax()};
}

// The outputs of the qkv op, and its inputs besides x and weights.
template <class T>
struct KvCase {
  KvCase(int rows, const Heads& heads, bool fault)
      : pool_blocks(rows + 3),
        plane(int64_t{pool_blocks} * heads.kv_heads * 64 * heads.head_dim),
        positions(rows),
        slots(rows),
        faults(rows),
        cos(Table(heads.head_dim, false)),
        sin(Table(heads.head_dim, true)),
        keys(plane),
        values(plane),
        q(int64_t{rows} * heads.QWidth()) {
    std::vector<int32_t> p, s;
    for (int r = 0; r < rows; ++r) {
      p.push_back((r * 37 + 5) % kContext);
      s.push_back((1 + (r * 5 + 1) % (pool_blocks - 1)) * 64 + (r * 7) % 64);
    }
    if (fault && rows > 2) s[2] = pool_blocks * 64;  // A block that does not exist.
    if (fault && rows > 4) p[4] = kContext;
    positions.Upload(p);
    slots.Upload(s);
    faults.Zero();
    keys.Zero();
    values.Zero();
    q.Zero();  // The q of a faulted row is undefined.
  }
  static std::vector<float> Table(int head_dim, bool sine) {
    std::vector<float> table;
    for (int p = 0; p < kContext; ++p) {
      for (int i = 0; i < head_dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / head_dim);
        table.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
      }
    }
    return table;
  }
  KvTarget Target() const {
    return {keys.get(), values.get(), slots.get(), positions.get(), cos.get(),
            sin.get(),  faults.get(), pool_blocks, kContext};
  }
  int pool_blocks;
  int64_t plane;
  DeviceBuffer<int32_t> positions, slots, faults;
  DeviceBuffer<float> cos, sin;
  DeviceBuffer<T> keys, values, q;
};

// Weights of one shape; every op can be tested with them.
template <class T>
struct Weights {
  Weights(int n_, int k_, uint64_t salt = 1) : n(n_), k(k_), w(int64_t{n_} * k_), norm(k_) {
    FillNormal(w, 0.03f, salt);
    norm.Upload(RandomNormal<float>(k, 0.2f, salt + 100, 1.0f));
  }
  SkinnyWeight Prepare(int rows, bool has_norm) const {
    const auto config = SkinnyPickConfig({rows, n, k, has_norm}, Device());
    EXPECT_TRUE(config.has_value());
    return Prepare(config.value_or(SkinnyConfig{}));
  }
  SkinnyWeight Prepare(const SkinnyConfig& config) const {
    SkinnyWeight weight;
    EXPECT_CUDA(PrepareSkinny(config, DTypeOf<T>(), w.get(), n, k, &weight));
    return weight;
  }
  void Product(const T* x, int rows, const float* bias, void* y, bool float_out = false) const {
    ASSERT_CUDA(RefProduct(Stream(), {.dtype = DTypeOf<T>(),
                                      .w = w.get(),
                                      .x = x,
                                      .bias = bias,
                                      .y = y,
                                      .float_out = float_out,
                                      .rows = rows,
                                      .n = n,
                                      .k = k}));
  }
  void Norm(T* x, const int32_t* gather, int rows, T* y) const {
    ASSERT_CUDA(RefRmsNorm(Stream(), {.dtype = DTypeOf<T>(),
                                      .x = x,
                                      .weight = norm.get(),
                                      .gather = gather,
                                      .y = y,
                                      .eps = kEps,
                                      .rows = rows,
                                      .width = k}));
  }
  // x if the op computes the norm itself, otherwise `normed`.
  SkinnyInput Input(const SkinnyWeight& weight, const T* x, const T* normed, int rows) const {
    if (weight.config.fuses_norm) return {x, norm.get(), kEps, rows};
    return {normed, nullptr, 0, rows};
  }
  int n, k;
  DeviceBuffer<T> w;
  DeviceBuffer<float> norm;
};

std::string Name(const char* op, int rows, const SkinnyWeight& weight) {
  return std::string(op) + " of " + std::to_string(rows) + " rows, n " + std::to_string(weight.n) +
         ", k " + std::to_string(weight.k) + ": " + ToString(weight.config);
}

template <class T>
class SkinnyTest : public testing::Test {
 protected:
  void Residual(const Weights<T>& w, int rows, const SkinnyWeight& weight) {
    const int64_t count = int64_t{rows} * w.n;
    DeviceBuffer<T> x(int64_t{rows} * w.k), want(count), got(count), y(count), partial(count);
    FillNormal(x, 1.0f, 2);
    for (DeviceBuffer<T>* residual : {&want, &got}) FillNormal(*residual, 1.0f, 3);
    w.Product(x.get(), rows, nullptr, y.get());
    ASSERT_CUDA(SkinnyPartial(MakeContext(), weight, {x.get(), nullptr, 0, rows}, partial.get()));
    ExpectSameBits(partial, y, Name("partial", rows, weight), w.n);
    Add(want.get(), y.get(), count);
    ASSERT_CUDA(SkinnyResidual(MakeContext(), weight, {x.get(), nullptr, 0, rows}, got.get()));
    ExpectSameBits(got, want, Name("residual", rows, weight), w.n);
    const bool room =
        weight.config.stages * SkinnyStageBytes(weight.config) >= kNormAfterSharedBytes;
    if (!NormAfterCase<T>::Does(w.n) || !room) return;
    NormAfterCase<T> norm(rows, w.n, 5);
    FillNormal(got, 1.0f, 3);
    ASSERT_CUDA(
        SkinnyResidual(MakeContext(), weight, {x.get(), nullptr, 0, rows}, got.get(), norm.Args()));
    ExpectSameBits(got, want, Name("normed residual", rows, weight), w.n);
    norm.Check(got.get(), Name("residual", rows, weight));
  }
  void Residual(const Weights<T>& w, int rows) { Residual(w, rows, w.Prepare(rows, false)); }

  void GateUp(const Weights<T>& w, int rows, const SkinnyWeight& weight) {
    DeviceBuffer<T> x(int64_t{rows} * w.k), normed(x.count()), both(int64_t{rows} * w.n);
    DeviceBuffer<T> want(both.count() / 2), got(both.count() / 2);
    FillNormal(x, 3.0f, 2);
    w.Norm(x.get(), nullptr, rows, normed.get());
    w.Product(normed.get(), rows, nullptr, both.get());
    ASSERT_CUDA(RefSiluMul(Stream(), {.dtype = DTypeOf<T>(),
                                      .gate_up = both.get(),
                                      .y = want.get(),
                                      .rows = rows,
                                      .ffn = w.n / 2}));
    ASSERT_CUDA(SkinnyGateUp(MakeContext(), weight, w.Input(weight, x.get(), normed.get(), rows),
                             got.get()));
    ExpectSameBits(got, want, Name("gate_up", rows, weight), w.n / 2);
  }
  void GateUp(const Weights<T>& w, int rows) { GateUp(w, rows, w.Prepare(rows, true)); }

  void Head(const Weights<T>& w, int rows) {
    const int x_rows = rows + 5;
    const SkinnyWeight weight = w.Prepare(rows, true);
    DeviceBuffer<T> x(int64_t{x_rows} * w.k), normed(int64_t{rows} * w.k);
    DeviceBuffer<float> want(int64_t{rows} * w.n), got(want.count());
    FillNormal(x, 0.2f, 2);
    std::vector<int32_t> from;
    for (int r = 0; r < rows; ++r) from.push_back((r * 3 + 4) % x_rows);
    DeviceBuffer<int32_t> gather(from);
    w.Norm(x.get(), gather.get(), rows, normed.get());
    w.Product(normed.get(), rows, nullptr, want.get(), true);
    ASSERT_CUDA(SkinnyHead(MakeContext(), weight, w.Input(weight, x.get(), normed.get(), rows),
                           weight.config.fuses_norm ? gather.get() : nullptr, got.get()));
    Finish();
    EXPECT_EQ(CountDifferent(got.get(), want.get(), got.count()), 0) << Name("head", rows, weight);
  }

  void Qkv(const Weights<T>& w, int rows, const Heads& heads, bool with_bias, bool fault) {
    ASSERT_EQ(w.n, heads.Width());
    const SkinnyWeight weight = w.Prepare(rows, true);
    DeviceBuffer<T> x(int64_t{rows} * w.k), normed(x.count()), qkv(int64_t{rows} * w.n);
    DeviceBuffer<float> bias(RandomNormal<float>(w.n, 1.0f, 4));
    KvCase<T> got(rows, heads, fault), want(rows, heads, fault);
    FillNormal(x, 0.5f, 2);
    w.Norm(x.get(), nullptr, rows, normed.get());
    w.Product(normed.get(), rows, with_bias ? bias.get() : nullptr, qkv.get());
    ASSERT_CUDA(RefRopeKvWrite(Stream(), {.dtype = DTypeOf<T>(),
                                          .qkv = qkv.get(),
                                          .kv = want.Target(),
                                          .q = want.q.get(),
                                          .rows = rows,
                                          .heads = heads.heads,
                                          .kv_heads = heads.kv_heads,
                                          .head_dim = heads.head_dim}));
    SkinnyQkvArgs args;
    args.input = w.Input(weight, x.get(), normed.get(), rows);
    args.bias = with_bias ? bias.get() : nullptr;
    args.kv = got.Target();
    args.q = got.q.get();
    args.heads = heads.heads;
    args.kv_heads = heads.kv_heads;
    args.head_dim = heads.head_dim;
    ASSERT_CUDA(SkinnyQkv(MakeContext(), weight, args));
    const std::string name = Name("qkv", rows, weight);
    ExpectSameBits(got.q, want.q, name + " q", heads.QWidth());
    ExpectSameBits(got.keys, want.keys, name + " keys", heads.head_dim);
    ExpectSameBits(got.values, want.values, name + " values", heads.head_dim);
    ExpectSameBits(got.faults, want.faults, name + " faults");
  }
};
TYPED_TEST_SUITE(SkinnyTest, ElementTypes);

TYPED_TEST(SkinnyTest, TinyShapesAtEveryRowCount) {
  const Weights<TypeParam> qkv(512, 256), o(256, 256), gate_up(1408, 256), down(256, 704),
      head(4096, 256);
  for (int rows = 1; rows <= 16; ++rows) {
    this->Qkv(qkv, rows, {4, 2, 64}, rows % 2 == 0, rows % 3 == 2);
    this->Residual(o, rows);
    this->GateUp(gate_up, rows);
    this->Residual(down, rows);
    this->Head(head, rows);
  }
}

TYPED_TEST(SkinnyTest, OddShapes) {
  for (const int rows : {1, 3, 8, 9, 16}) {
    this->Residual(Weights<TypeParam>(264, 704), rows);  // The last tile has half of its rows.
    this->Residual(Weights<TypeParam>(8, 64), rows);
    this->Residual(Weights<TypeParam>(4104, 192), rows);
    this->Head(Weights<TypeParam>(1000, 448), rows);
    this->GateUp(Weights<TypeParam>(5008, 320), rows);
    this->Qkv(Weights<TypeParam>(7 * 128, 448), rows, {5, 1, 128}, true, false);
  }
}

TYPED_TEST(SkinnyTest, ConfigurationsHaveEqualBits) {
  const Weights<TypeParam> down(2064, 1216), gate_up(6000, 1216);
  for (const int rows : {1, 7, 16}) {
    for (const int tiles : Cases({1, 2, 5, 8, 11, 12})) {
      for (const int chunk : Cases({64, 192, 256, 512})) {
        for (const int stages : {2, 0}) {
          for (const bool norm : {false, true}) {
            const Weights<TypeParam>& w = norm ? gate_up : down;
            auto config = SkinnyMakeConfig({rows, w.n, w.k, norm}, Device(), tiles, chunk, stages,
                                           Device().shared_bytes);
            if (!config) continue;
            config->evict_first = chunk != 192;
            if (stages == 2) config->grid = 1 + config->grid / 3;  // More passes.
            if (norm) {
              this->GateUp(w, rows, w.Prepare(*config));
            } else {
              this->Residual(w, rows, w.Prepare(*config));
            }
            if (this->HasFatalFailure() || this->HasFailure()) return;
          }
        }
      }
    }
  }
}

TYPED_TEST(SkinnyTest, PublishedShapes7B) {
  const Heads heads = FewerHeads(Heads{32, 32, 128});
  const int hidden = Width(4096), ffn = Width(11008);
  const Weights<TypeParam> qkv(heads.Width(), hidden), o(hidden, hidden), gate_up(2 * ffn, hidden),
      down(hidden, ffn);
  for (const int rows : Cases({1, 2, 5, 8, 9, 13, 16})) {
    this->Qkv(qkv, rows, heads, false, false);
    this->Residual(o, rows);
    this->GateUp(gate_up, rows);
    this->Residual(down, rows);
  }
  this->Head(Weights<TypeParam>(Width(102400), hidden), 1);
  this->Head(Weights<TypeParam>(Width(102400), hidden), 8);
}

TYPED_TEST(SkinnyTest, PublishedShapes13BAnd33B) {
  const Heads all = FewerHeads(Heads{40, 40, 128}), grouped = FewerHeads(Heads{56, 8, 128});
  for (const int rows : {1, 8, 13}) {
    this->Qkv(Weights<TypeParam>(all.Width(), Width(5120)), rows, all, false, false);
    this->GateUp(Weights<TypeParam>(Width(27648), Width(5120)), rows);
    this->Residual(Weights<TypeParam>(Width(5120), Width(13824)), rows);
    this->Qkv(Weights<TypeParam>(grouped.Width(), Width(7168)), rows, grouped, true, true);
    this->GateUp(Weights<TypeParam>(Width(38400), Width(7168)), rows);
    this->Residual(Weights<TypeParam>(Width(7168), Width(19200)), rows);
  }
}

TYPED_TEST(SkinnyTest, NearFloat64) {
  const int rows = 3, n = 256, k = 704;
  const Weights<TypeParam> w(n, k);
  DeviceBuffer<TypeParam> x(rows * k), got(rows * n);
  FillNormal(x, 1.0f, 2);
  got.Zero();
  ASSERT_CUDA(SkinnyResidual(MakeContext(), w.Prepare(rows, false), {x.get(), nullptr, 0, rows},
                             got.get()));
  Finish();
  const auto host_x = x.Download(), host_w = w.w.Download();
  std::vector<double> want;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int j = 0; j < k; ++j) {
        sum += static_cast<double>(ToFloat(host_x[r * k + j])) * ToFloat(host_w[i * k + j]);
      }
      want.push_back(sum);
    }
  }
  ExpectNear(got.Download(), want, 1.01 * gpu_test::HalfUlp<TypeParam>(), 1e-4, "residual");
}

TYPED_TEST(SkinnyTest, RefusesWhatItDoesNotDo) {
  const Weights<TypeParam> w(256, 256);
  const SkinnyWeight weight = w.Prepare(8, false);
  DeviceBuffer<TypeParam> x(16 * 256), y(16 * 256);
  const LaunchContext context = MakeContext();
  const auto residual = [&](const SkinnyInput& input) {
    return SkinnyResidual(context, weight, input, y.get());
  };
  EXPECT_EQ(residual({x.get(), nullptr, 0, 9}), cudaErrorInvalidValue);
  EXPECT_EQ(residual({x.get(), w.norm.get(), kEps, 8}), cudaErrorInvalidValue);
  EXPECT_EQ(residual({x.get(), nullptr, 0, 0}), cudaSuccess);
  EXPECT_EQ(SkinnyGateUp(context, weight, {x.get(), w.norm.get(), kEps, 8}, y.get()),
            cudaErrorInvalidValue);
}

// Two layers of a 7B model without attention (o takes q), replayed from a graph in which every
// kernel starts while the previous one runs.
template <class T>
struct Chain {
  static constexpr int kLayers = 2;
  // o takes q, so it is as wide as the hidden state.
  static inline const int kHidden = Width(4096), kFfn = Width(11008);
  static inline const Heads kHeads = FewerHeads(Heads{32, 32, 128});
  struct Layer {
    explicit Layer(int rows, uint64_t salt)
        : qkv(kHeads.Width(), kHidden, salt),
          o(kHidden, kHidden, salt + 1),
          gate_up(2 * kFfn, kHidden, salt + 2),
          down(kHidden, kFfn, salt + 3),
          got(rows, kHeads, false),
          want(rows, kHeads, false) {}
    Weights<T> qkv, o, gate_up, down;
    KvCase<T> got, want;
  };
  explicit Chain(int rows_)
      : rows(rows_),
        start(int64_t{rows_} * kHidden),
        x(start.count()),
        want(start.count()),
        normed(start.count()),
        wide(int64_t{rows_} * 2 * kFfn),
        ffn(int64_t{rows_} * kFfn),
        counters(2) {
    FillNormal(start, 1.0f, 7);
    counters.Zero();
    for (int i = 0; i < kLayers; ++i) layers.push_back(std::make_unique<Layer>(rows, 10 + 4 * i));
  }

  void Reference() {
    ASSERT_CUDA(
        cudaMemcpyAsync(want.get(), start.get(), start.bytes(), cudaMemcpyDefault, Stream()));
    for (const auto& l : layers) {
      l->qkv.Norm(want.get(), nullptr, rows, normed.get());
      l->qkv.Product(normed.get(), rows, nullptr, wide.get());
      ASSERT_CUDA(RefRopeKvWrite(Stream(), {.dtype = DTypeOf<T>(),
                                            .qkv = wide.get(),
                                            .kv = l->want.Target(),
                                            .q = l->want.q.get(),
                                            .rows = rows,
                                            .heads = kHeads.heads,
                                            .kv_heads = kHeads.kv_heads,
                                            .head_dim = kHeads.head_dim}));
      l->o.Product(l->want.q.get(), rows, nullptr, normed.get());
      Add(want.get(), normed.get(), want.count());
      l->gate_up.Norm(want.get(), nullptr, rows, normed.get());
      l->gate_up.Product(normed.get(), rows, nullptr, wide.get());
      ASSERT_CUDA(RefSiluMul(Stream(), {DTypeOf<T>(), wide.get(), ffn.get(), rows, kFfn}));
      l->down.Product(ffn.get(), rows, nullptr, normed.get());
      Add(want.get(), normed.get(), want.count());
    }
  }

  // Norms are inside the GEMMs if they have room for them, else at the end of the previous GEMM.
  void Launch(bool dependent) {
    LaunchContext context = MakeContext(false);
    ASSERT_CUDA(cudaMemcpyAsync(x.get(), start.get(), start.bytes(), cudaMemcpyDefault, Stream()));
    const bool inside = layers[0]->qkv.Prepare(rows, true).config.fuses_norm;
    const auto input = [&](const Weights<T>& w) {
      return inside ? SkinnyInput{x.get(), w.norm.get(), kEps, rows}
                    : SkinnyInput{normed.get(), nullptr, kEps, rows};
    };
    const auto after = [&](const Weights<T>* w) {
      if (inside || w == nullptr) return NormAfter{};
      return NormAfter{w->norm.get(), normed.get(), kEps, counters.get()};
    };
    if (!inside) {
      ASSERT_CUDA(RmsNorm(context, {.dtype = DTypeOf<T>(),
                                    .x = x.get(),
                                    .weight = layers[0]->qkv.norm.get(),
                                    .y = normed.get(),
                                    .eps = kEps,
                                    .rows = rows,
                                    .width = kHidden}));
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      const auto& l = layers[i];
      const Weights<T>* next = i + 1 < layers.size() ? &layers[i + 1]->qkv : nullptr;
      SkinnyQkvArgs args;
      args.input = input(l->qkv);
      args.kv = l->got.Target();
      args.q = l->got.q.get();
      args.heads = kHeads.heads;
      args.kv_heads = kHeads.kv_heads;
      args.head_dim = kHeads.head_dim;
      ASSERT_CUDA(SkinnyQkv(context, l->qkv.Prepare(rows, true), args));
      context.dependent = dependent;  // The first one follows a copy.
      ASSERT_CUDA(SkinnyResidual(context, l->o.Prepare(rows, false),
                                 {l->got.q.get(), nullptr, 0, rows}, x.get(), after(&l->gate_up)));
      ASSERT_CUDA(
          SkinnyGateUp(context, l->gate_up.Prepare(rows, true), input(l->gate_up), ffn.get()));
      ASSERT_CUDA(SkinnyResidual(context, l->down.Prepare(rows, false),
                                 {ffn.get(), nullptr, 0, rows}, x.get(), after(next)));
    }
  }

  void Compare(const std::string& what) {
    Finish();
    EXPECT_EQ(CountDifferent(x.get(), want.get(), x.count()), 0) << what;
    for (const auto& l : layers) {
      EXPECT_EQ(CountDifferent(l->got.q.get(), l->want.q.get(), l->got.q.count()), 0) << what;
      EXPECT_EQ(CountDifferent(l->got.keys.get(), l->want.keys.get(), l->got.plane), 0) << what;
      EXPECT_EQ(CountDifferent(l->got.values.get(), l->want.values.get(), l->got.plane), 0) << what;
    }
  }

  int rows;
  DeviceBuffer<T> start, x, want, normed, wide, ffn;
  DeviceBuffer<int32_t> counters;
  std::vector<std::unique_ptr<Layer>> layers;
};

TYPED_TEST(SkinnyTest, ChainedLaunchesHaveTheSameBitsEachTime) {
  for (const int rows : {1, 8, 13}) {
    Chain<TypeParam> chain(rows);
    chain.Reference();
    chain.Launch(false);  // Also loads the kernels, which is not possible during a capture.
    chain.Compare("one after the other");
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    Finish();
    ASSERT_CUDA(cudaStreamBeginCapture(Stream(), cudaStreamCaptureModeRelaxed));
    chain.Launch(true);
    ASSERT_CUDA(cudaStreamEndCapture(Stream(), &graph));
    ASSERT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    for (int replay = 0; replay < Times(50); ++replay) {
      for (const auto& layer : chain.layers) {
        layer->got.keys.Zero();
        layer->got.values.Zero();
        layer->got.q.Poison();
      }
      ASSERT_CUDA(cudaDeviceSynchronize());
      ASSERT_CUDA(cudaGraphLaunch(exec, Stream()));
      chain.Compare("overlapping, replay " + std::to_string(replay));
      if (this->HasFailure()) break;
    }
    ASSERT_CUDA(cudaGraphExecDestroy(exec));
    ASSERT_CUDA(cudaGraphDestroy(graph));
  }
}

}  // namespace
}  // namespace fathom::kernels::cuda
