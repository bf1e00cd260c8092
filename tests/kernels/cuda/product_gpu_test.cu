// GEMMs of any shape: every tile of ProductGeneric, and cuBLASLt's compared algorithms, against one
// warp of mma.sync that adds along k, bit for bit; and against float64.
#include <algorithm>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/linear/product_tile.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/reference.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::Cases;
using gpu_test::CountDifferent;
using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::ExpectSameBits;
using gpu_test::FillNormal;
using gpu_test::Finish;
using gpu_test::FromFloat;
using gpu_test::HalfUlp;
using gpu_test::MakeContext;
using gpu_test::RandomNormal;
using gpu_test::Stream;
using gpu_test::ToFloat;
using gpu_test::Width;

struct Shape {
  int n, k;
};
// The qkv, o, gate_up, down and LM head of fathom-tiny; those of a model with hidden 224; and
// unusual shapes: n no multiple of a tile, k shorter than a stage, with every kind of tail.
constexpr Shape kSmall[] = {{512, 256}, {256, 256}, {1408, 256}, {256, 704}, {4096, 256},
                            {672, 224}, {224, 224}, {8, 16},     {24, 48},   {72, 80},
                            {136, 64},  {200, 112}, {1000, 528}, {56, 1040}};
constexpr Shape kPublished[] = {{12288, 4096}, {4096, 11008}, {9216, 7168}, {27648, 5120}};
constexpr int kRowCounts[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 65, 129, 300};

std::string Describe(const ProductArgs& a, const char* what) {
  return std::string(what) + ": rows " + std::to_string(a.rows) + ", n " + std::to_string(a.n) +
         ", k " + std::to_string(a.k) + (a.bias != nullptr ? ", bias" : "") +
         (a.float_out ? ", fp32" : "");
}

template <class T>
class ProductTest : public testing::Test {};
TYPED_TEST_SUITE(ProductTest, gpu_test::ElementTypes);

template <class T>
struct Inputs {
  Inputs(Shape s, int rows)
      : w(int64_t{s.n} * s.k), x(int64_t{rows} * s.k), bias(RandomNormal<float>(s.n, 1.0f, s.n)) {
    FillNormal(w, 0.05f, s.n * 31 + s.k);
    FillNormal(x, 1.0f, s.n * 37 + s.k);
    args.dtype = DTypeOf<T>();
    args.w = w.get(), args.x = x.get();
    args.rows = rows, args.n = s.n, args.k = s.k;
  }
  DeviceBuffer<T> w, x;
  DeviceBuffer<float> bias;
  ProductArgs args;
};

// Compares the output of every tile with the reference's, as Out.
template <class T, class Out>
void CheckTiles(Inputs<T>& in, bool bias) {
  ProductArgs args = in.args;
  args.bias = bias ? in.bias.get() : nullptr;
  args.float_out = std::is_same_v<Out, float>;
  DeviceBuffer<Out> want(int64_t{args.rows} * args.n);
  args.y = want.get();
  EXPECT_CUDA(RefProduct(Stream(), args));
  for (const ProductTile tile : kProductTiles) {
    DeviceBuffer<Out> got(want.count());
    args.y = got.get();
    EXPECT_CUDA(ProductWithTile(MakeContext(true), args, tile));
    if (CountDifferent(got.get(), want.get(), want.count()) == 0) continue;
    const ProductTileShape s = ShapeOf(tile);
    ExpectSameBits(
        got, want,
        Describe(args, "a tile") + ", " + std::to_string(s.rows) + " x " + std::to_string(s.n),
        args.n);
    return;
  }
}

TYPED_TEST(ProductTest, EveryTileEqualsTheRecipe) {
  for (const Shape s : Cases(kSmall)) {
    for (const int rows : Cases(kRowCounts)) {
      Inputs<TypeParam> in(s, rows);
      CheckTiles<TypeParam, TypeParam>(in, false);
      CheckTiles<TypeParam, TypeParam>(in, true);
      CheckTiles<TypeParam, float>(in, rows % 2 == 0);
    }
  }
}

TYPED_TEST(ProductTest, PublishedShapesEqualTheRecipe) {
  for (const Shape s : kPublished) {
    for (const int rows : {1, 40, 515}) {
      Inputs<TypeParam> in({Width(s.n), Width(s.k)}, rows);
      CheckTiles<TypeParam, TypeParam>(in, false);
    }
  }
}

// The bits of a row are the same alone and with any other rows around it.
TYPED_TEST(ProductTest, ARowIsAloneAmongNaNs) {
  using T = TypeParam;
  constexpr Shape kShape = {136, 304};
  constexpr int kRows = 70;
  Inputs<T> in(kShape, kRows);
  DeviceBuffer<T> alone(int64_t{kRows} * kShape.n), among(int64_t{kRows} * kShape.n);
  in.args.y = alone.get();
  EXPECT_CUDA(ProductGeneric(MakeContext(), in.args));
  Finish();
  auto x = in.x.Download();
  for (int r = 0; r < kRows; ++r) {
    if (r % 3 == 0) continue;
    for (int i = 0; i < kShape.k; ++i) x[int64_t{r} * kShape.k + i] = FromFloat<T>(NAN);
  }
  in.x.Upload(x);
  in.args.y = among.get();
  EXPECT_CUDA(ProductGeneric(MakeContext(), in.args));
  Finish();
  const auto a = alone.Download(), b = among.Download();
  for (int64_t i = 0; i < alone.count(); ++i) {
    if (i / kShape.n % 3 == 0) {
      ASSERT_EQ(ToFloat(a[i]), ToFloat(b[i])) << i;
    } else {
      ASSERT_TRUE(std::isnan(ToFloat(b[i]))) << i;
    }
  }
}

TYPED_TEST(ProductTest, AgainstFloat64) {
  using T = TypeParam;
  for (const Shape s : {Shape{72, 80}, {256, 704}, {40, 4096}}) {
    constexpr int kRows = 21;
    Inputs<T> in(s, kRows);
    in.args.bias = in.bias.get();
    DeviceBuffer<T> y(int64_t{kRows} * s.n);
    in.args.y = y.get();
    EXPECT_CUDA(ProductGeneric(MakeContext(), in.args));
    Finish();
    const auto w = in.w.Download(), x = in.x.Download(), got = y.Download();
    const auto bias = in.bias.Download();
    for (int r = 0; r < kRows; ++r) {
      for (int n = 0; n < s.n; ++n) {
        double sum = bias[n], size = std::abs(sum);
        for (int k = 0; k < s.k; ++k) {
          const double term =
              double{ToFloat(x[int64_t{r} * s.k + k])} * ToFloat(w[int64_t{n} * s.k + k]);
          sum += term, size += std::abs(term);
        }
        ASSERT_NEAR(ToFloat(got[int64_t{r} * s.n + n]), sum,
                    HalfUlp<T>() * std::abs(sum) + 2e-6 * size)
            << Describe(in.args, "row ") << r << ", " << n;
      }
    }
  }
}

TYPED_TEST(ProductTest, RefusesWhatItDoesNotDo) {
  ProductArgs args;
  args.dtype = DTypeOf<TypeParam>();
  args.rows = 1, args.n = 8, args.k = 24;
  EXPECT_EQ(ProductGeneric(MakeContext(), args), cudaErrorInvalidValue);
  args.n = 4, args.k = 32;
  EXPECT_EQ(ProductGeneric(MakeContext(), args), cudaErrorInvalidValue);
  args.n = 8, args.dtype = DType::kF32;
  EXPECT_EQ(ProductGeneric(MakeContext(), args), cudaErrorInvalidValue);
  args.dtype = DTypeOf<TypeParam>(), args.rows = 0;
  EXPECT_EQ(ProductGeneric(MakeContext(), args), cudaSuccess);
}

// --- cuBLASLt ---

class CublasTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string error;
    cublas_ = CublasLt::Create(workspace_.get(), static_cast<size_t>(workspace_.bytes()), &error);
    if (cublas_ == nullptr) GTEST_SKIP() << error;
  }
  DeviceBuffer<char> workspace_{32 << 20};
  std::unique_ptr<CublasLt> cublas_;
};

TEST_F(CublasTest, RunsWhatItProposes) {
  using T = __nv_bfloat16;
  Inputs<T> in({4096, 4096}, 256);
  DeviceBuffer<T> want(int64_t{256} * 4096), got(want.count());
  in.args.y = want.get();
  EXPECT_CUDA(ProductGeneric(MakeContext(), in.args));
  in.args.y = got.get();
  const auto candidates = cublas_->Candidates(in.args, false, 8);
  ASSERT_FALSE(candidates.empty()) << "cuBLASLt " << cublas_->Version();
  int equal = 0;
  for (const CublasLt::Candidate& candidate : candidates) {
    EXPECT_EQ(candidate.split_k, 1);
    EXPECT_EQ(candidate.workspace_bytes, 0u);
    got.Poison();
    EXPECT_CUDA(cublas_->Matmul(MakeContext(), in.args, candidate.algo));
    equal += CountDifferent(got.get(), want.get(), want.count()) == 0 ? 1 : 0;
  }
  std::printf("cuBLASLt %d: %d of %zu algorithms are canonical\n", cublas_->Version(), equal,
              candidates.size());
  EXPECT_GT(equal, 0);
  EXPECT_GE(cublas_->Candidates(in.args, true, 8).size(), candidates.size() > 0 ? 1u : 0u);
}

// Tests every entry of the table for this device and library, at both ends of its rows and between.
TEST_F(CublasTest, TheTableIsCanonical) {
  using T = __nv_bfloat16;
  const LaunchContext context = MakeContext();
  std::vector<CublasEntry> entries;
  int64_t w_most = 1, x_most = 1, y_most = 1;
  for (const CublasEntry& e : CublasTable()) {
    if (e.shape.sm != context.sm || e.shape.version != cublas_->Version() ||
        e.shape.dtype != DType::kBf16) {
      continue;
    }
    entries.push_back(e);
    w_most = std::max(w_most, int64_t{e.shape.n} * e.shape.k);
    x_most = std::max(x_most, int64_t{e.rows_max} * e.shape.k);
    y_most = std::max(y_most, int64_t{e.rows_max} * e.shape.n * (e.shape.float_out ? 4 : 2));
  }
  if (entries.empty()) GTEST_SKIP() << "no entries for cuBLASLt " << cublas_->Version();
  DeviceBuffer<T> w(w_most), x(x_most);
  DeviceBuffer<char> want(y_most), got(y_most);
  DeviceBuffer<float> bias(RandomNormal<float>(1 << 18, 1.0f, 3));
  FillNormal(w, 0.05f, 1);
  FillNormal(x, 1.0f, 2);
  for (const CublasEntry& e : Cases(entries)) {
    for (const int rows : {e.rows_min, (e.rows_min + e.rows_max) / 2 + 1, e.rows_max}) {
      ProductArgs args = {e.shape.dtype,
                          w.get(),
                          x.get(),
                          e.shape.bias ? bias.get() : nullptr,
                          want.get(),
                          e.shape.float_out,
                          std::min(rows, e.rows_max),
                          e.shape.n,
                          e.shape.k};
      const int64_t count = int64_t{args.rows} * args.n;
      EXPECT_CUDA(ProductGeneric(context, args));
      args.y = got.get();
      got.Poison();
      EXPECT_CUDA(Product(context, cublas_.get(), args));
      const int64_t different =
          e.shape.float_out
              ? CountDifferent(static_cast<float*>(args.y), reinterpret_cast<float*>(want.get()),
                               count)
              : CountDifferent(static_cast<T*>(args.y), reinterpret_cast<T*>(want.get()), count);
      EXPECT_EQ(different, 0) << Describe(args, "the table");
    }
  }
  std::printf("cuBLASLt %d: %zu entries compared\n", cublas_->Version(), entries.size());
}

// Tests a missing library, and rows beyond the table.
TEST_F(CublasTest, ProductEqualsGeneric) {
  using T = __nv_bfloat16;
  for (const int rows : {1, 100, 4500}) {
    Inputs<T> in({4096, 4096}, rows);
    DeviceBuffer<T> want(int64_t{rows} * 4096), got(want.count()), without(want.count());
    in.args.y = want.get();
    EXPECT_CUDA(ProductGeneric(MakeContext(), in.args));
    in.args.y = got.get();
    EXPECT_CUDA(Product(MakeContext(), cublas_.get(), in.args));
    in.args.y = without.get();
    EXPECT_CUDA(Product(MakeContext(), nullptr, in.args));
    EXPECT_EQ(CountDifferent(got.get(), want.get(), want.count()), 0) << rows;
    EXPECT_EQ(CountDifferent(without.get(), want.get(), want.count()), 0) << rows;
  }
}

}  // namespace
}  // namespace fathom::kernels::cuda
