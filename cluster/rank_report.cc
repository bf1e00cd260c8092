#include "cluster/rank_report.h"

#include <fmt/format.h>

namespace fathom {
namespace {

// Shorter times without progress are usual in a step, and heartbeats come every 250 ms.
constexpr int64_t kStillUs = 1'000'000;

}  // namespace

const char* NameOf(Phase phase) {
  switch (phase) {
    case Phase::kUnspecified:
      return "UNSPECIFIED";
    case Phase::kStarting:
      return "STARTING";
    case Phase::kIdle:
      return "IDLE";
    case Phase::kLoading:
      return "LOADING";
    case Phase::kConnecting:
      return "CONNECTING";
    case Phase::kCapturing:
      return "CAPTURING";
    case Phase::kStepping:
      return "STEPPING";
    case Phase::kDraining:
      return "DRAINING";
  }
  return "UNKNOWN";
}

const char* NameOf(Activity activity) {
  switch (activity) {
    case Activity::kUnspecified:
      break;
    case Activity::kBetweenSteps:
      return "between steps";
    case Activity::kPreparing:
      return "before the first layer";
    case Activity::kAttention:
      return "attention";
    case Activity::kMlp:
      return "MLP";
    case Activity::kHead:
      return "head";
    case Activity::kStageMessage:
      return "message between stages";
    case Activity::kOnDevice:
      return "queued on the device";
  }
  return "unknown";
}

std::string DescribeWork(const RankReport& report) {
  std::string text;
  if (report.phase != Phase::kStepping) {
    text = report.phase == Phase::kIdle
               ? fmt::format("between steps, the last one was step {}", report.step.value)
               : NameOf(report.phase);
  } else {
    text = fmt::format("step {}", report.step.value);
    if (report.work.activity != Activity::kUnspecified) {
      text += report.work.layer < 0 ? ", " : fmt::format(", layer {} ", report.work.layer);
      text += NameOf(report.work.activity);
    }
    if (report.work.step_collectives > 0) {
      text += fmt::format(", collective {} of the step", report.work.step_collectives);
    }
  }
  if (report.still_us >= kStillUs) {
    text += fmt::format(", no progress for {:.1f} s", static_cast<double>(report.still_us) * 1e-6);
  }
  if (report.waits_for >= 0) text += fmt::format(", waits for rank {}", report.waits_for);
  return text;
}

}  // namespace fathom
