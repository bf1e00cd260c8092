#include "modeling/spec/stages.h"

#include <algorithm>
#include <limits>

#include "common/check.h"
#include "common/status.h"
#include "modeling/spec/rank_model.h"

namespace fathom {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

int64_t BytesOfRank0(const Parameter& parameter, int32_t tp) {
  return SliceOf(parameter, tp, 0).elements() * (parameter.precision == Precision::kMatrix ? 2 : 4);
}

// What a division is made of: the sizes of stages by their first layer and the layer after them.
class Division {
 public:
  Division(std::span<const int64_t> layers, int64_t first, int64_t last, int32_t stages)
      : count_(static_cast<int32_t>(layers.size())), stages_(stages), first_(first), last_(last) {
    sums_.push_back(0);
    for (const int64_t layer : layers) sums_.push_back(sums_.back() + layer);
  }

  std::vector<LayerRange> Best() const {
    // The cost of a division is that of its largest stage; then, without larger stages, the sum of
    // the squares.
    const double most =
        Solve(kNone, [](double rest, double size) { return std::max(rest, size); }).front().front();
    const Table costs = Solve(most, [](double rest, double size) { return rest + size * size; });
    std::vector<LayerRange> ranges;
    for (int32_t stage = 0, begin = 0; stage < stages_; ++stage) {
      const int32_t end = NextOf(costs, stage, begin, most);
      ranges.push_back({begin, end});
      begin = end;
    }
    return ranges;
  }

 private:
  // [stage][begin]: the least cost of the stages from `stage` on, if they have the layers from
  // `begin` on; kNone: they cannot.
  using Table = std::vector<std::vector<double>>;

  double SizeOf(int32_t stage, int32_t begin, int32_t end) const {
    return static_cast<double>(sums_[static_cast<size_t>(end)] - sums_[static_cast<size_t>(begin)] +
                               (stage == 0 ? first_ : 0) + (stage + 1 == stages_ ? last_ : 0));
  }

  template <class Cost>
  Table Solve(double most, Cost cost) const {
    Table table(static_cast<size_t>(stages_) + 1,
                std::vector<double>(static_cast<size_t>(count_) + 1, kNone));
    table.back().back() = 0;
    for (int32_t stage = stages_ - 1; stage >= 0; --stage) {
      const std::vector<double>& rest = table[static_cast<size_t>(stage) + 1];
      for (int32_t begin = 0; begin < count_; ++begin) {
        double& best = table[static_cast<size_t>(stage)][static_cast<size_t>(begin)];
        for (int32_t end = begin + 1; end <= count_; ++end) {
          const double size = SizeOf(stage, begin, end);
          if (size > most) break;
          if (rest[static_cast<size_t>(end)] == kNone) continue;
          best = std::min(best, cost(rest[static_cast<size_t>(end)], size));
        }
      }
    }
    return table;
  }

  // The least end of a stage that begins with layer `begin` with which the cost is the least.
  int32_t NextOf(const Table& costs, int32_t stage, int32_t begin, double most) const {
    int32_t best = 0;
    double least = kNone;
    for (int32_t end = begin + 1; end <= count_; ++end) {
      const double size = SizeOf(stage, begin, end);
      if (size > most) break;
      const double cost =
          costs[static_cast<size_t>(stage) + 1][static_cast<size_t>(end)] + size * size;
      if (cost < least) {
        least = cost;
        best = end;
      }
    }
    FATHOM_CHECK(best > begin, "stage {} of {} begins with layer {}", stage, stages_, begin);
    return best;
  }

  const int32_t count_;
  const int32_t stages_;
  const int64_t first_, last_;
  std::vector<int64_t> sums_;  // [layers + 1]: of the layers before.
};

}  // namespace

absl::Status CheckStages(const ModelSpec& spec, int32_t stages) {
  const auto layers = static_cast<int32_t>(spec.layers.size());
  if (stages >= 1 && stages <= layers) return absl::OkStatus();
  return Invalid(
      "--pipeline-parallel-size {} does not fit the model: each stage needs one of its {} layers; "
      "use 1 to {}",
      stages, layers, layers);
}

std::vector<LayerRange> DivideLayers(std::span<const int64_t> layers, int64_t first, int64_t last,
                                     int32_t stages) {
  FATHOM_CHECK(stages >= 1 && static_cast<size_t>(stages) <= layers.size(), "{} stages, {} layers",
               stages, layers.size());
  return Division(layers, first, last, stages).Best();
}

std::vector<LayerRange> StagesOf(const ModelSpec& spec, int32_t tp, int32_t stages) {
  std::vector<int64_t> layers;
  for (const LayerSpec& layer : spec.layers) {
    int64_t& bytes = layers.emplace_back(0);
    for (const Parameter& parameter : layer.parameters) bytes += BytesOfRank0(parameter, tp);
  }
  const int64_t head = spec.lm_head ? BytesOfRank0(*spec.lm_head, tp)
                                    : RowsOfRank(spec.vocab, tp) * int64_t{spec.hidden} * 2;
  return DivideLayers(layers, BytesOfRank0(spec.embedding, tp),
                      BytesOfRank0(spec.final_norm, tp) + head, stages);
}

}  // namespace fathom
