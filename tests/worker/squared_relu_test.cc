// The CPU's decoder with MLPs without a gate (Arcee): its logits are near those of plain loops in
// double precision over one sequence, which share no code with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/modeling/model_files.h"
#include "tests/worker/decoder_rig.h"

namespace fathom::worker {
namespace {

using Row = std::vector<double>;

// As SmallArcee says.
constexpr size_t kLayers = 2, kQueryHeads = 4, kKvHeads = 2, kHeadDim = 8;
constexpr double kEps = 1e-5, kTheta = 10000;

class Oracle {
 public:
  explicit Oracle(testing::ModelFiles model) : model_(std::move(model)) {}

  // The logits of the next token of the sequence.
  Row Next(TokenId id) {
    const Row table = Values("model.embed_tokens.weight");
    const size_t hidden = Values("model.norm.weight").size();
    const auto begin = table.begin() + static_cast<std::ptrdiff_t>(hidden) * id;
    Row x(begin, begin + static_cast<std::ptrdiff_t>(hidden));
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      Add(&x, Attention(layer, prefix + "self_attn.", Norm(x, prefix + "input_layernorm.weight")));
      Row up =
          Times(prefix + "mlp.up_proj.weight", Norm(x, prefix + "post_attention_layernorm.weight"));
      for (double& value : up) value = value > 0 ? value * value : 0;
      Add(&x, Times(prefix + "mlp.down_proj.weight", up));
    }
    ++position_;
    return Times("lm_head.weight", Norm(x, "model.norm.weight"));
  }

 private:
  Row Values(const std::string& name) {
    const std::vector<float> values = testing::ToFloats("F32", model_.Tensor(name).bytes);
    return {values.begin(), values.end()};
  }
  Row Times(const std::string& name, const Row& x) {
    const Row matrix = Values(name);
    Row y(matrix.size() / x.size());
    for (size_t i = 0; i < matrix.size(); ++i) y[i / x.size()] += matrix[i] * x[i % x.size()];
    return y;
  }
  Row Norm(const Row& x, const std::string& name) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    Row y = Values(name);
    const auto count = static_cast<double>(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] *= x[i] / std::sqrt(squares / count + kEps);
    return y;
  }
  static void Add(Row* x, const Row& y) {
    for (size_t i = 0; i < x->size(); ++i) (*x)[i] += y[i];
  }
  void Rotate(Row* heads) const {
    for (size_t begin = 0; begin < heads->size(); begin += kHeadDim) {
      for (size_t i = 0; i < kHeadDim / 2; ++i) {
        const double angle =
            static_cast<double>(position_) *
            std::pow(kTheta, -2.0 * static_cast<double>(i) / static_cast<double>(kHeadDim));
        double &a = (*heads)[begin + i], &b = (*heads)[begin + i + kHeadDim / 2];
        const double old = a;
        a = old * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + old * std::sin(angle);
      }
    }
  }
  Row Attention(size_t layer, const std::string& prefix, const Row& x) {
    Row q = Times(prefix + "q_proj.weight", x), k = Times(prefix + "k_proj.weight", x);
    Rotate(&q);
    Rotate(&k);
    keys_[layer].push_back(k);
    values_[layer].push_back(Times(prefix + "v_proj.weight", x));
    Row out(q.size());
    for (size_t head = 0; head < kQueryHeads; ++head) {
      const size_t at = head * kHeadDim, kv_at = head / (kQueryHeads / kKvHeads) * kHeadDim;
      double sum = 0;
      for (size_t token = 0; token < keys_[layer].size(); ++token) {
        double score = 0;
        for (size_t i = 0; i < kHeadDim; ++i) score += q[at + i] * keys_[layer][token][kv_at + i];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(kHeadDim)));
        sum += weight;
        for (size_t i = 0; i < kHeadDim; ++i) {
          out[at + i] += weight * values_[layer][token][kv_at + i];
        }
      }
      for (size_t i = 0; i < kHeadDim; ++i) out[at + i] /= sum;
    }
    return Times(prefix + "o_proj.weight", out);
  }

  testing::ModelFiles model_;
  size_t position_ = 0;
  std::vector<Row> keys_[kLayers], values_[kLayers];  // For each token: all kv heads.
};

TEST(SquaredRelu, TheDecoderIsNearPlainLoops) {
  const char* chosen = std::getenv("FATHOM_SEED");
  const uint64_t seed = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 7;
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  testing::ModelFiles model = testing::SmallArcee(seed);
  // Weights of ordinary size, so that every part counts.
  for (testing::StoredTensor& tensor : model.tensors) {
    std::vector<float> values = testing::ToFloats("F32", tensor.bytes);
    for (float& value : values) value = tensor.shape.size() == 1 ? 1 + value : 4 * value;
    tensor.bytes = testing::FromFloats(StoredType::kF32, values);
  }
  const testing::TempFolder folder;
  testing::WriteModel(folder.path(), model);
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < 24; ++i) ids.push_back((7 * i + 3) % 40);  // More than a block has.
  Oracle oracle(model);
  std::vector<float> expected;
  for (const TokenId id : ids) {
    for (const double logit : oracle.Next(id)) expected.push_back(static_cast<float>(logit));
  }
  std::vector<float> whole;
  for (const int tp : {1, 2}) {
    RunRanks(folder.path(), {.tp = tp}, [&](Rank& rank) {
      Sequence first(1, 2), second(4, 2);
      const std::vector<float> logits = Feed(rank, first, ids);
      const std::vector<float> chunked = FeedInChunks(rank, second, ids, 5);
      if (rank.comm->rank() != 0) return;
      EXPECT_THAT(logits, ::testing::Pointwise(::testing::FloatNear(2e-3f), expected)) << tp;
      EXPECT_EQ(chunked, logits) << tp;
      if (tp == 1) whole = logits;
    });
  }
  // The logits are not all small: the comparison would see another activation.
  float most = 0;
  for (const float logit : whole) most = std::max(most, std::fabs(logit));
  EXPECT_GT(most, 1.0f);
}

}  // namespace
}  // namespace fathom::worker
