// Every value of cluster.proto has a range, and the check refuses values outside it by name.
#include "cluster/wire_ranges.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cluster.pb.h"
#include "cluster/wire_parts.h"
#include "tests/cluster/message_walk.h"

namespace fathom {
namespace {

namespace pb = cluster::v1;
using ::testing::HasSubstr;

const google::protobuf::FileDescriptor& File() { return *pb::Hello::descriptor()->file(); }

const FieldDescriptor* FieldOf(std::string_view name) {
  const size_t dot = name.find('.');
  const auto* type = File().FindMessageTypeByName(std::string(name.substr(0, dot)));
  return type == nullptr ? nullptr : type->FindFieldByName(std::string(name.substr(dot + 1)));
}

// A message with small values everywhere passes, so each refusal below is caused by one value.
std::unique_ptr<ProtoMessage> Small(const google::protobuf::Descriptor* type) {
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  std::unique_ptr<ProtoMessage> message(factory->GetPrototype(type)->New());
  FillMessage(message.get());
  return message;
}

// Sets a number; returns false if the field's type cannot have this value.
bool SetNumber(ProtoMessage* message, const FieldDescriptor* field, double value) {
  const auto& reflection = *message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      if (value < INT32_MIN || value > INT32_MAX) return false;
      field->is_repeated()
          ? reflection.SetRepeatedInt32(message, field, 0, static_cast<int32_t>(value))
          : reflection.SetInt32(message, field, static_cast<int32_t>(value));
      return true;
    case FieldDescriptor::CPPTYPE_INT64:
      reflection.SetInt64(message, field, static_cast<int64_t>(value));
      return true;
    case FieldDescriptor::CPPTYPE_UINT32:
      if (value < 0 || value > UINT32_MAX) return false;
      reflection.SetUInt32(message, field, static_cast<uint32_t>(value));
      return true;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (value < 0) return false;
      field->is_repeated()
          ? reflection.SetRepeatedUInt64(message, field, 0, static_cast<uint64_t>(value))
          : reflection.SetUInt64(message, field, static_cast<uint64_t>(value));
      return true;
    case FieldDescriptor::CPPTYPE_FLOAT:
      field->is_repeated()
          ? reflection.SetRepeatedFloat(message, field, 0, static_cast<float>(value))
          : reflection.SetFloat(message, field, static_cast<float>(value));
      return true;
    default:
      return false;
  }
}

TEST(WireRanges, EveryRowIsOfAField) {
  for (const WireRange& row : WireRanges()) EXPECT_NE(FieldOf(row.field), nullptr) << row.field;
}

// The table itself checks at its first use that every field has a row.
TEST(WireRanges, SmallValuesAreTakenInEveryMessage) {
  for (int m = 0; m < File().message_type_count(); ++m) {
    const absl::Status status = CheckRanges(*Small(File().message_type(m)));
    EXPECT_TRUE(status.ok()) << ToString(status);
  }
}

TEST(WireRanges, ValuesOutsideAreRefusedByName) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  int checked = 0;
  for (const WireRange& row : WireRanges()) {
    const FieldDescriptor* field = FieldOf(row.field);
    if (std::isinf(row.min) && std::isinf(row.max)) continue;
    std::vector<double> outside = {std::nan(""), kInf, -kInf};
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_FLOAT) outside.clear();
    outside.push_back(row.max + std::max(1.0, std::abs(row.max) / 1024));
    if (!std::isinf(row.min)) outside.push_back(row.min - std::max(1.0, std::abs(row.min) / 1024));
    for (const double value : outside) {
      if (value == row.min) continue;
      const auto message = Small(field->containing_type());
      if (!SetNumber(message.get(), field, value)) continue;
      ++checked;
      EXPECT_THAT(std::string(Message(CheckRanges(*message))), HasSubstr(std::string(row.field)))
          << value;
    }
    for (const double value : {row.min, row.max}) {
      const auto message = Small(field->containing_type());
      if (std::isinf(value) || !SetNumber(message.get(), field, value)) continue;
      EXPECT_TRUE(CheckRanges(*message).ok()) << row.field << " = " << value;
    }
  }
  EXPECT_GT(checked, 200);
}

TEST(WireRanges, LongTextsAndListsAreRefusedByName) {
  pb::RouteUp up;
  up.mutable_hello()->set_build(std::string(257, 'x'));
  EXPECT_THAT(std::string(Message(CheckRanges(up))), HasSubstr("Hello.build (bytes): 257"));
  up.mutable_hello()->set_build("x");
  for (int i = 0; i < 257; ++i) up.mutable_hello()->add_features("f");
  EXPECT_THAT(std::string(Message(CheckRanges(up))), HasSubstr("Hello.features: 257 items"));
}

// A message that passes the check is converted, or refused by name; no value ends the process.
TEST(WireRanges, ExtremesOfEveryFieldAreReadOrRefused) {
  int64_t variants = 0;
  pb::Record record;
  FillMessage(&record);
  ExtremesWalk([&](const std::string&) {
    ++variants;
    if (CheckRanges(record).ok()) static_cast<void>(FromWire(record));
  }).Walk(&record, "Record");
  pb::StepPlan plan;
  FillMessage(&plan);
  ExtremesWalk([&](const std::string&) {
    ++variants;
    if (CheckRanges(plan).ok()) static_cast<void>(FromWire(plan));
  }).Walk(&plan, "StepPlan");
  pb::StepResult result;
  FillMessage(&result);
  ExtremesWalk([&](const std::string&) {
    ++variants;
    if (CheckRanges(result).ok()) static_cast<void>(FromWire(result));
  }).Walk(&result, "StepResult");
  for (int m = 0; m < File().message_type_count(); ++m) {
    const auto message = Small(File().message_type(m));
    ExtremesWalk([&](const std::string&) {
      ++variants;
      static_cast<void>(CheckRanges(*message));
    }).Walk(message.get(), File().message_type(m)->name());
  }
  EXPECT_GT(variants, 3000);
}

}  // namespace
}  // namespace fathom
