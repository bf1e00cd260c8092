// cluster/wire.h: the only code that converts the plain messages of a stream (route_messages.h,
// control_messages.h, plan.h) to messages of cluster.proto and back. Pure functions.
//
// A ToWire replaces the content of the message, so a message can be reused. The overloads say which
// messages each stream may carry. A FromWire first checks the whole message with CheckRanges
// (wire_ranges.h), then the errors of a peer that ranges do not cover (missing oneofs, unequal
// lengths, fields of a newer build). It returns INVALID_ARGUMENT with the message's and the field's
// name. It does not check what depends on the receiver's state (terms, slots, positions). It takes
// the message by &&, because it moves long texts out of it.
#pragma once

#include "cluster/control_messages.h"
#include "cluster/plan.h"
#include "cluster/route_messages.h"
#include "common/status.h"

namespace fathom::cluster::v1 {
class RouteUp;
class RouteDown;
class ControlUp;
class ControlDown;
class StepsUp;
class StepsDown;
class ComputeKind;
}  // namespace fathom::cluster::v1

namespace fathom {

// ---- Route (route_wire.cc) ----

void ToWire(const Hello& from, cluster::v1::RouteUp* to);
void ToWire(const Heartbeat& from, cluster::v1::RouteUp* to);
void ToWire(const Submit& from, cluster::v1::RouteUp* to);
void ToWire(const Suspend& from, cluster::v1::RouteUp* to);
void ToWire(const Close& from, cluster::v1::RouteUp* to);
void ToWire(const ExplainAsk& from, cluster::v1::RouteUp* to);
// A Submit that cannot be parsed becomes a SubmitUnreadable, because it must not end the stream for
// other requests.
absl::StatusOr<RouteUpMessage> FromWire(cluster::v1::RouteUp&& from);

void ToWire(const Hello& from, cluster::v1::RouteDown* to);
void ToWire(const Heartbeat& from, cluster::v1::RouteDown* to);
void ToWire(const Accepted& from, cluster::v1::RouteDown* to);
void ToWire(const Refused& from, cluster::v1::RouteDown* to);
void ToWire(const Frames& from, cluster::v1::RouteDown* to);
void ToWire(const ClusterStats& from, cluster::v1::RouteDown* to);
void ToWire(const Resign& from, cluster::v1::RouteDown* to);
void ToWire(const Explained& from, cluster::v1::RouteDown* to);
absl::StatusOr<RouteDownMessage> FromWire(cluster::v1::RouteDown&& from);

// ---- Control (control_wire.cc) ----

void ToWire(const Hello& from, cluster::v1::ControlUp* to);
void ToWire(const Heartbeat& from, cluster::v1::ControlUp* to);
void ToWire(const GroupExchange& from, cluster::v1::ControlUp* to);
void ToWire(const GroupReady& from, cluster::v1::ControlUp* to);
void ToWire(const GroupFailed& from, cluster::v1::ControlUp* to);
absl::StatusOr<ControlUpMessage> FromWire(cluster::v1::ControlUp&& from);

void ToWire(const Hello& from, cluster::v1::ControlDown* to);
void ToWire(const Heartbeat& from, cluster::v1::ControlDown* to);
void ToWire(const GroupSeat& from, cluster::v1::ControlDown* to);
void ToWire(const GroupExchange& from, cluster::v1::ControlDown* to);
void ToWire(const Abort& from, cluster::v1::ControlDown* to);
void ToWire(const Resign& from, cluster::v1::ControlDown* to);
absl::StatusOr<ControlDownMessage> FromWire(cluster::v1::ControlDown&& from);

// ---- Steps (step_wire.cc) ----

void ToWire(const StepsHello& from, cluster::v1::StepsUp* to);
void ToWire(const StepResult& from, cluster::v1::StepsUp* to);
absl::StatusOr<StepsUpMessage> FromWire(cluster::v1::StepsUp&& from);

void ToWire(const StepPlan& from, cluster::v1::StepsDown* to);
absl::StatusOr<StepPlan> FromWire(cluster::v1::StepsDown&& from);

// ---- ComputeKind, which recordings contain too (record_wire.cc). No value of it is invalid ----

void ToWire(const ComputeKind& from, cluster::v1::ComputeKind* to);
ComputeKind FromWire(const cluster::v1::ComputeKind& from);

}  // namespace fathom
