// The bits of PrefillAttentionWgmma against the reference, for every cut of a sequence into chunks.
// All memory that belongs to no token is NaN: padding of pages, free pages, rows between chunks.
#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/cuda/attention/prefill_attention.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/prefill_reference.cuh"

namespace fathom::gpu_test {
namespace {

using kernels::cuda::kBlockTokens;
using kernels::cuda::PrefillAttentionArgs;
using kernels::cuda::PrefillChunk;

constexpr int kDim = 128;

template <class T>
__global__ void ScaleKernel(T* x, int64_t count, float factor) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    x[i] = cuda::Element<T>::Round(cuda::Element<T>::Widen(x[i]) * factor);
  }
}

// Copies tokens [tokens][kv_heads][kDim] into the pages of a plane.
template <class T>
__global__ void ScatterKernel(const T* from, const int32_t* table, int tokens, int kv_heads,
                              T* plane) {
  const int token = blockIdx.x, head = blockIdx.y;
  const int64_t page = table[token / kBlockTokens];
  plane[((page * kv_heads + head) * kBlockTokens + token % kBlockTokens) * kDim + threadIdx.x] =
      from[(int64_t{token} * kv_heads + head) * kDim + threadIdx.x];
}

struct Piece {
  int sequence = 0;
  int begin = 0;
  int rows = 0;
};

struct Shape {
  int heads = 32;
  int kv_heads = 32;
  float query_scale = 1;
  float value_scale = 1;
};

// Sequences whose keys and values are in pages in random order, and the reference's result.
template <class T>
class World {
 public:
  World(const Shape& published, const std::vector<int>& tokens)
      : shape_(FewerHeads(published)), tokens_(tokens), stride_(0), counter_(2) {
    for (const int t : tokens) {
      pool_ += PagesOf(t);
      stride_ = std::max(stride_, PagesOf(t) + 2);
    }
    pool_ += 5;
    MakeTables();
    const int64_t plane = int64_t{pool_} * shape_.kv_heads * kBlockTokens * kDim;
    keys_ = std::make_unique<DeviceBuffer<T>>(plane);
    values_ = std::make_unique<DeviceBuffer<T>>(plane);
    for (size_t i = 0; i < tokens.size(); ++i) AddSequence(i);
    counter_.Zero();
  }

  // Computes all pieces in one call: their rows have the bits of `want`, no other row is written,
  // and there is no fault. The pieces are in q and out in their order, with gaps between them.
  void Check(const std::vector<Piece>& pieces, const LaunchContext& context,
             const std::string& what) {
    std::vector<PrefillChunk> chunks;
    int rows = 0;
    for (const Piece& p : pieces) {
      rows += 3;
      chunks.push_back({rows, p.rows, p.begin, p.sequence});
      rows += p.rows;
    }
    rows += 2;
    DeviceBuffer<T> q(Elements(rows)), out(Elements(rows)), want(Elements(rows));
    DeviceBuffer<int32_t> faults(rows);
    faults.Zero();
    for (size_t i = 0; i < pieces.size(); ++i) {
      CopyRows(*q_[pieces[i].sequence], pieces[i], chunks[i], q.get());
      CopyRows(*want_[pieces[i].sequence], pieces[i], chunks[i], want.get());
    }
    ASSERT_CUDA(Launch(context, chunks, rows, q, faults, out));
    Finish();
    for (size_t i = 0; i < pieces.size(); ++i) {
      const int64_t at = Elements(chunks[i].row_begin);
      const int64_t different =
          CountDifferent(out.get() + at, want.get() + at, Elements(chunks[i].rows));
      ASSERT_EQ(different, 0) << what << ": sequence " << pieces[i].sequence << " from "
                              << pieces[i].begin << ", " << pieces[i].rows << " rows";
    }
    ExpectGapsUntouched(out, chunks, rows, what);
    const std::vector<int32_t> found = faults.Download();
    EXPECT_EQ(std::count(found.begin(), found.end(), 0), rows) << what;
    EXPECT_EQ(counter_.Download(), std::vector<int32_t>(2)) << what;
  }
  void Check(const std::vector<Piece>& pieces, const std::string& what) {
    Check(pieces, MakeContext(), what);
  }
  // Computes the sequence in chunks of `rows`: each in a launch of its own, or `together` of them
  // in one.
  void CheckCut(int sequence, int rows, int together, const std::string& what) {
    std::vector<Piece> pieces;
    for (int begin = 0; begin < tokens_[sequence]; begin += rows) {
      pieces.push_back({sequence, begin, std::min(rows, tokens_[sequence] - begin)});
      if (static_cast<int>(pieces.size()) < together) continue;
      Check(pieces, what);
      pieces.clear();
    }
    if (!pieces.empty()) Check(pieces, what);
  }

  cudaError_t Launch(const LaunchContext& context, const std::vector<PrefillChunk>& chunks,
                     int rows, const DeviceBuffer<T>& q, const DeviceBuffer<int32_t>& faults,
                     const DeviceBuffer<T>& out) {
    PrefillAttentionArgs a;
    a.dtype = DTypeOf<T>();
    a.q = q.get();
    a.keys = keys_->get();
    a.values = values_->get();
    a.block_tables = tables_->get();
    a.chunks = chunks;
    DeviceBuffer<PrefillChunk> device_chunks(chunks);
    a.device_chunks = device_chunks.get();
    a.work_counter = counter_.get();
    a.faults = faults.get();
    a.out = out.get();
    a.total_rows = rows;
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = kDim;
    a.table_stride = stride_;
    a.pool_blocks = pool_;
    const cudaError_t error = PrefillAttentionWgmma(context, a);
    Finish();  // The chunks above end here.
    return error;
  }

  int64_t Elements(int rows) const { return int64_t{rows} * shape_.heads * kDim; }
  int pool() const { return pool_; }
  int tokens(int sequence) const { return tokens_[sequence]; }
  const Shape& shape() const { return shape_; }
  const DeviceBuffer<T>& q(int sequence) const { return *q_[sequence]; }
  const DeviceBuffer<T>& want(int sequence) const { return *want_[sequence]; }
  const DeviceBuffer<T>& tokens_of(bool values) const { return values ? *last_v_ : *last_k_; }
  void SetEntry(int sequence, int page, int32_t block) {
    table_[sequence * stride_ + page] = block;
    tables_->Upload(table_);
  }

 private:
  static int PagesOf(int tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

  void MakeTables() {
    std::vector<int32_t> order(pool_);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(Seed() + pool_);
    std::shuffle(order.begin(), order.end(), random);
    table_.assign(tokens_.size() * stride_, -1);  // An entry that is no page must not be read.
    int next = 0;
    for (size_t s = 0; s < tokens_.size(); ++s) {
      for (int p = 0; p < PagesOf(tokens_[s]); ++p) table_[s * stride_ + p] = order[next++];
    }
    tables_ = std::make_unique<DeviceBuffer<int32_t>>(table_);
  }

  void AddSequence(size_t i) {
    const int tokens = tokens_[i];
    const int64_t kv = int64_t{tokens} * shape_.kv_heads * kDim;
    const int32_t* table = tables_->get() + i * stride_;
    auto k = std::make_unique<DeviceBuffer<T>>(kv), v = std::make_unique<DeviceBuffer<T>>(kv);
    FillNormal(*k, 1.0f, 10 * i + 1);
    FillNormal(*v, 1.0f, 10 * i + 2);
    ScaleKernel<T><<<1024, 256, 0, Stream()>>>(v->get(), kv, shape_.value_scale);
    const dim3 grid(tokens, shape_.kv_heads);
    ScatterKernel<T>
        <<<grid, kDim, 0, Stream()>>>(k->get(), table, tokens, shape_.kv_heads, keys_->get());
    ScatterKernel<T>
        <<<grid, kDim, 0, Stream()>>>(v->get(), table, tokens, shape_.kv_heads, values_->get());
    q_.push_back(std::make_unique<DeviceBuffer<T>>(Elements(tokens)));
    want_.push_back(std::make_unique<DeviceBuffer<T>>(Elements(tokens)));
    FillNormal(*q_.back(), shape_.query_scale, 10 * i + 3);
    const RefSequence reference = {table, tokens, shape_.heads, shape_.kv_heads};
    EXPECT_CUDA(RefPrefill(Stream(), reference, q_.back()->get(), keys_->get(), values_->get(),
                           want_.back()->get()));
    Finish();
    last_k_ = std::move(k);
    last_v_ = std::move(v);
  }

  void CopyRows(const DeviceBuffer<T>& from, const Piece& piece, const PrefillChunk& to_chunk,
                T* to) {
    EXPECT_CUDA(
        cudaMemcpyAsync(to + Elements(to_chunk.row_begin), from.get() + Elements(piece.begin),
                        Elements(piece.rows) * sizeof(T), cudaMemcpyDeviceToDevice, Stream()));
  }

  void ExpectGapsUntouched(const DeviceBuffer<T>& out, const std::vector<PrefillChunk>& chunks,
                           int rows, const std::string& what) {
    int row = 0;
    const auto gap = [&](int end) {
      std::vector<uint16_t> found(Elements(end - row));
      EXPECT_CUDA(cudaMemcpy(found.data(), out.get() + Elements(row), found.size() * 2,
                             cudaMemcpyDeviceToHost));
      EXPECT_EQ(std::count(found.begin(), found.end(), 0xFFFF), static_cast<int64_t>(found.size()))
          << what << ": rows from " << row;
    };
    for (const PrefillChunk& chunk : chunks) {
      gap(chunk.row_begin);
      row = chunk.row_begin + chunk.rows;
    }
    gap(rows);
  }

  const Shape shape_;
  const std::vector<int> tokens_;
  int pool_ = 0;
  int stride_;
  std::vector<int32_t> table_;
  std::unique_ptr<DeviceBuffer<int32_t>> tables_;
  DeviceBuffer<int32_t> counter_;
  std::unique_ptr<DeviceBuffer<T>> keys_, values_;
  std::vector<std::unique_ptr<DeviceBuffer<T>>> q_, want_;
  std::unique_ptr<DeviceBuffer<T>> last_k_, last_v_;  // The last sequence's tokens.
};

std::string Name(const Shape& s, int tokens) {
  std::ostringstream name;
  name << s.heads << "/" << s.kv_heads << ", " << tokens << " tokens, queries x " << s.query_scale
       << ", values x " << s.value_scale;
  return name.str();
}

template <class T>
class PrefillWgmma : public ::testing::Test {};
TYPED_TEST_SUITE(PrefillWgmma, ElementTypes);

TYPED_TEST(PrefillWgmma, WholeSequences) {
  constexpr int kTokens[] = {1,   2,   7,   15,  16,  17,   63,   64,   65,   127,  128, 129,
                             191, 500, 511, 512, 513, 1023, 1024, 1025, 1777, 2048, 2100};
  for (const Shape& base :
       {Shape{32, 32}, Shape{40, 40}, Shape{56, 8}, Shape{32, 8}, Shape{28, 4}}) {
    for (const int tokens : Cases(kTokens)) {
      Shape shape = base;
      shape.query_scale = tokens % 3 == 0 ? 0.5f : tokens % 3 == 1 ? 2.0f : 6.0f;
      World<TypeParam> world(shape, {tokens});
      world.Check({{0, 0, tokens}}, Name(shape, tokens));
      if (this->HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(PrefillWgmma, Chunks) {
  for (const Shape& shape : {Shape{32, 32, 2}, Shape{56, 8, 2}}) {
    for (const int tokens : {65, 500, Sanitized() ? 530 : 1777}) {
      World<TypeParam> world(shape, {tokens});
      for (const int rows : Cases({7, 64, 100, 500})) {
        world.CheckCut(0, rows, 1, Name(shape, tokens) + ", chunks of " + std::to_string(rows));
        world.CheckCut(0, rows, 1000, Name(shape, tokens) + ", all chunks at once");
        if (this->HasFatalFailure()) return;
      }
      // More chunks than the table of one launch has.
      world.CheckCut(0, 1, tokens <= 65 ? 1 : 150, Name(shape, tokens) + ", chunks of 1");
    }
  }
}

TYPED_TEST(PrefillWgmma, StartPositions) {
  for (const Shape& shape : {Shape{32, 32, 2}, Shape{28, 4, 2}}) {
    for (const int tokens : {1025, 1777}) {
      World<TypeParam> world(shape, {tokens});
      constexpr int kBegins[] = {0, 1, 63, 64, 65, 127, 128, 500, 511, 512, 513, 1023, 1024};
      for (const int begin : Cases(kBegins)) {
        world.Check({{0, begin, tokens - begin}},
                    Name(shape, tokens) + ", from " + std::to_string(begin));
        if (this->HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(PrefillWgmma, SeveralSequences) {
  for (const Shape& shape : {Shape{32, 32, 2}, Shape{56, 8, 2}, Shape{40, 40, 2}}) {
    World<TypeParam> world(shape, {1, 700, 129, 64, 1500, 33, 512, 1, 1025, 200});
    std::vector<Piece> whole, ends;
    for (int s = 0; s < 10; ++s) {
      const int tokens = world.tokens(s);
      whole.push_back({s, 0, tokens});
      ends.push_back({s, tokens / 3, tokens - tokens / 3});
    }
    world.Check(whole, "whole sequences together");
    world.Check(ends, "their ends together");
    world.Check({{4, 1400, 100}, {0, 0, 0}, {1, 600, 17}, {4, 0, 1400}, {2, 128, 1}},
                "two parts of one, one without rows");
    if (this->HasFatalFailure()) return;
  }
}

// A maximum that moves often, tiny and denormal results, large values, zeros.
TYPED_TEST(PrefillWgmma, HardValues) {
  const bool bf16 = DTypeOf<TypeParam>() == DType::kBf16;
  std::vector<Shape> shapes = {{8, 8, 0.001f, 1}, {8, 8, 40, 1}, {8, 8, 300, 1}, {14, 2, 5, 0}};
  if (bf16) {
    for (const float values : {1e-27f, 1e-37f, 1e-39f, 3e30f}) shapes.push_back({8, 8, 1, values});
  } else {
    for (const float values : {1e-6f, 1e-4f, 1e4f}) shapes.push_back({8, 8, 1, values});
  }
  for (const Shape& shape : shapes) {
    World<TypeParam> world(shape, {1300});
    world.Check({{0, 0, 1300}}, Name(shape, 1300));
    if (this->HasFatalFailure()) return;
  }
}

TYPED_TEST(PrefillWgmma, RepeatedAndChainedLaunches) {
  World<TypeParam> world({32, 32, 2}, {2048, 100});
  for (int i = 0; i < Times(20); ++i) {
    world.Check({{0, 0, 2048}, {1, 0, 100}}, MakeContext(i % 2 == 1), "repeated");
    if (this->HasFatalFailure()) return;
  }
}

// Launches without a pause between them, which tests the counters and the early start of the next
// launch.
TYPED_TEST(PrefillWgmma, BackToBack) {
  World<TypeParam> world({32, 8, 2}, {300});
  const DeviceBuffer<TypeParam>& q = world.q(0);
  DeviceBuffer<TypeParam> out(world.Elements(300));
  DeviceBuffer<int32_t> faults(300);
  faults.Zero();
  const std::vector<PrefillChunk> chunks(200, PrefillChunk{0, 300, 0, 0});  // Four launches.
  ASSERT_CUDA(world.Launch(MakeContext(true), chunks, 300, q, faults, out));
  EXPECT_EQ(CountDifferent(out.get(), world.want(0).get(), world.Elements(300)), 0);
}

TYPED_TEST(PrefillWgmma, BlockBeyondThePool) {
  World<TypeParam> world({32, 8, 1}, {700, 300});
  world.SetEntry(0, 8, world.pool());
  world.SetEntry(0, 9, -1);
  DeviceBuffer<TypeParam> q(world.Elements(1000)), out(world.Elements(1000));
  FillNormal(q, 1.0f, 99);
  DeviceBuffer<int32_t> faults(1000);
  faults.Zero();
  ASSERT_CUDA(
      world.Launch(MakeContext(), {{0, 700, 0, 0}, {700, 300, 0, 1}}, 1000, q, faults, out));
  const std::vector<int32_t> found = faults.Download();
  for (int row = 0; row < 1000; ++row) {
    const bool sees = row >= 8 * kBlockTokens && row < 700;
    EXPECT_EQ(found[row], sees ? kernels::cuda::kFaultBlockRange : 0) << row;
  }
}

// Against softmax in float64.
TYPED_TEST(PrefillWgmma, NearTheTruth) {
  constexpr int kTokens = 600;
  World<TypeParam> world({4, 2, 1}, {kTokens});
  const int heads = world.shape().heads, kv_heads = world.shape().kv_heads;
  world.Check({{0, 0, kTokens}}, "near the truth");
  const auto q = world.q(0).Download(), k = world.tokens_of(false).Download(),
             v = world.tokens_of(true).Download(), got = world.want(0).Download();
  std::vector<double> want(got.size());
  for (int row = 0; row < kTokens; ++row) {
    for (int head = 0; head < heads; ++head) {
      const int64_t at = (int64_t{row} * heads + head) * kDim;
      double sum = 0;
      for (int t = 0; t <= row; ++t) {
        const int64_t from = (int64_t{t} * kv_heads + head / 2) * kDim;
        double score = 0;
        for (int d = 0; d < kDim; ++d) {
          score += double{ToFloat(q[at + d])} * double{ToFloat(k[from + d])};
        }
        const double weight = std::exp(score / std::sqrt(128.0));
        sum += weight;
        for (int d = 0; d < kDim; ++d) want[at + d] += weight * double{ToFloat(v[from + d])};
      }
      for (int d = 0; d < kDim; ++d) want[at + d] /= sum;
    }
  }
  ExpectNear(got, want, 2 * HalfUlp<TypeParam>(), 4 * HalfUlp<TypeParam>(), "softmax");
}

TEST(PrefillWgmmaShapes, RefusesWhatItDoesNotDo) {
  PrefillAttentionArgs a;
  a.heads = a.kv_heads = 4;
  a.head_dim = 64;
  EXPECT_EQ(PrefillAttentionWgmma(MakeContext(), a), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace fathom::gpu_test
