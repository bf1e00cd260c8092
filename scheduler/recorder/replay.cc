#include "scheduler/recorder/replay.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <utility>

#include "cluster.pb.h"
#include "cluster/wire.h"

namespace fathom::scheduler {
namespace {

// Serializes all fields of a message, in the order of their numbers.
std::string BytesOfMessage(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

template <class M>
std::string BytesToRouter(const M& message) {
  cluster::v1::RouteDown down;
  ToWire(message, &down);
  return BytesOfMessage(down);
}

}  // namespace

void ActionsHash::AddBytes(const std::string& bytes) {
  const auto add = [this](uint64_t byte) { value_ = (value_ ^ byte) * 0x100000001b3; };
  // The length is hashed before the bytes, so that two texts do not hash like their concatenation.
  for (int shift = 0; shift < 64; shift += 8) add((bytes.size() >> shift) & 0xff);
  for (const char c : bytes) add(static_cast<uint8_t>(c));
}

void ActionsHash::Add(const Actions& actions) {
  for (const auto& [router, accepted] : actions.accepted) {
    AddBytes(fmt::format("accepted {}", router.value));
    AddBytes(BytesToRouter(accepted));
  }
  for (const auto& [router, refused] : actions.refused) {
    AddBytes(fmt::format("refused {}", router.value));
    AddBytes(BytesToRouter(refused));
  }
  for (const auto& [router, frame] : actions.frames) {
    AddBytes(fmt::format("frame {}", router.value));
    AddBytes(BytesToRouter(Frames{TermId{}, {frame}}));
  }
  for (const auto& [group, plan] : actions.plans) {
    cluster::v1::StepsDown down;
    ToWire(plan, &down);
    AddBytes(fmt::format("plan {}", group.value));
    AddBytes(BytesOfMessage(down));
  }
  for (const GroupAbort& abort : actions.aborts) {
    AddBytes(fmt::format("abort {} {}", abort.group.value, abort.epoch.value));
    AddBytes(abort.reason);
  }
  for (const std::string& line : actions.log) AddBytes(line);
}

void ActionCounts::Add(const Actions& actions) {
  accepted += std::ssize(actions.accepted);
  refused += std::ssize(actions.refused);
  frames += std::ssize(actions.frames);
  plans += std::ssize(actions.plans);
  aborts += std::ssize(actions.aborts);
  log += std::ssize(actions.log);
}

std::string ActionCounts::Text() const {
  return fmt::format("accepted {}, refused {}, frames {}, plans {}, aborts {}, log lines {}",
                     accepted, refused, frames, plans, aborts, log);
}

absl::Status Replay::Step(Event event, TimeUs time_us, ActionCounts* actions) {
  ++events_;
  ++by_kind_[event.index()];
  const Actions done = core_.Step(std::move(event), time_us);
  hash_.Add(done);
  actions_.Add(done);
  if (actions != nullptr) actions->Add(done);
  return core_.CheckInvariants();
}

}  // namespace fathom::scheduler
