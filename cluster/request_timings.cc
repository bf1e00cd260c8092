#include "cluster/request_timings.h"

namespace fathom {

const char* WaitLimitName(WaitLimit limit) {
  switch (limit) {
    case WaitLimit::kSlots:
      return "slots";
    case WaitLimit::kBlocks:
      return "blocks";
    case WaitLimit::kNoGroup:
      return "no_group";
    case WaitLimit::kTenantRunning:
      return "tenant_running";
    case WaitLimit::kOther:
      break;
  }
  return "other";
}

const char* RequestPhaseName(RequestPhase phase) {
  switch (phase) {
    case RequestPhase::kQueued:
      return "queued";
    case RequestPhase::kPrefill:
      return "prefill";
    case RequestPhase::kDecode:
      return "decode";
    case RequestPhase::kSuspended:
      return "suspended";
    case RequestPhase::kReplay:
      return "replay";
    case RequestPhase::kEnded:
      break;
  }
  return "ended";
}

const char* StayEndName(StayEnd end) {
  switch (end) {
    case StayEnd::kNone:
      break;
    case StayEnd::kFinished:
      return "finished";
    case StayEnd::kPreempted:
      return "preempted";
    case StayEnd::kGroupLost:
      return "group_lost";
    case StayEnd::kClientLeft:
      return "client_left";
    case StayEnd::kBehind:
      return "behind";
  }
  return "none";
}

}  // namespace fathom
