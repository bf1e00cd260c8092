#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/reflection.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster.pb.h"
#include "cluster/wire_ranges.h"
#include "common/check.h"

namespace fathom {
namespace {

using google::protobuf::FieldDescriptor;
using ProtoMessage = google::protobuf::Message;
using google::protobuf::Reflection;

// A field and its row of the table; looked up once per process.
struct Rule {
  const FieldDescriptor* field;
  WireRange range;
};

absl::Status Outside(const Rule& rule, const std::string& value, const char* what = "") {
  return Invalid(
      "{}.{}{}: {} is not within {:.15g} and {:.15g}; the sender is of another build, or "
      "no process of this cluster",
      rule.field->containing_type()->name(), rule.field->name(), what, value, rule.range.min,
      rule.range.max);
}

template <class T>
absl::Status CheckNumber(const Rule& rule, T value) {
  // The comparison is written so that NaN fails. No integer beyond 2^53 is close to a limit, except
  // 2^62 itself.
  const auto number = static_cast<double>(value);
  if (number >= rule.range.min && number <= rule.range.max) return absl::OkStatus();
  return Outside(rule, fmt::format("{}", value));
}

absl::Status CheckText(const Rule& rule, const std::string& text) {
  if (static_cast<double>(text.size()) <= rule.range.max) return absl::OkStatus();
  return Outside(rule, std::to_string(text.size()), " (bytes)");
}

absl::Status CheckEnum(const Rule& rule, int value) {
  if (rule.field->enum_type()->FindValueByNumber(value) != nullptr) return absl::OkStatus();
  return Invalid("{}.{}: {} is not a {} that this build knows; run builds that are closer",
                 rule.field->containing_type()->name(), rule.field->name(), value,
                 rule.field->enum_type()->name());
}

template <class T>
absl::Status CheckNumbers(const Rule& rule, const ProtoMessage& message,
                          const Reflection& reflection) {
  for (const T value : reflection.GetRepeatedFieldRef<T>(message, rule.field)) {
    FATHOM_RETURN_IF_ERROR(CheckNumber(rule, value));
  }
  return absl::OkStatus();
}

absl::Status CheckList(const Rule& rule, const ProtoMessage& message,
                       const Reflection& reflection) {
  const int count = reflection.FieldSize(message, rule.field);
  if (count == 0) return absl::OkStatus();
  if (count > rule.range.count_max) {
    return Invalid(
        "{}.{}: {} items, at most {}; the sender is of another build, or no process of "
        "this cluster",
        rule.field->containing_type()->name(), rule.field->name(), count, rule.range.count_max);
  }
  switch (rule.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumbers<int32_t>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumbers<uint64_t>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckNumbers<float>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      for (int i = 0; i < count; ++i) {
        FATHOM_RETURN_IF_ERROR(CheckRanges(reflection.GetRepeatedMessage(message, rule.field, i)));
      }
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      for (int i = 0; i < count; ++i) {
        FATHOM_RETURN_IF_ERROR(CheckText(
            rule, reflection.GetRepeatedStringReference(message, rule.field, i, &scratch)));
      }
      return absl::OkStatus();
    }
    default:
      break;
  }
  FATHOM_CHECK(false, "a list of a type that cluster.proto does not use: {}",
               rule.field->full_name());
  return absl::OkStatus();
}

absl::Status CheckOne(const Rule& rule, const ProtoMessage& message, const Reflection& reflection) {
  if (rule.field->has_presence() && !reflection.HasField(message, rule.field)) {
    return absl::OkStatus();
  }
  switch (rule.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumber(rule, reflection.GetInt32(message, rule.field));
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckNumber(rule, reflection.GetInt64(message, rule.field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return CheckNumber(rule, reflection.GetUInt32(message, rule.field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumber(rule, reflection.GetUInt64(message, rule.field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckNumber(rule, reflection.GetFloat(message, rule.field));
    case FieldDescriptor::CPPTYPE_ENUM:
      return CheckEnum(rule, reflection.GetEnumValue(message, rule.field));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return CheckRanges(reflection.GetMessage(message, rule.field));
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      return CheckText(rule, reflection.GetStringReference(message, rule.field, &scratch));
    }
    default:
      break;
  }
  FATHOM_CHECK(false, "a type that cluster.proto does not use: {}", rule.field->full_name());
  return absl::OkStatus();
}

// The rules of each message, by its index in the file.
std::vector<std::vector<Rule>> MakeRules() {
  const std::span<const WireRange> ranges = WireRanges();
  const auto* file = cluster::v1::Hello::descriptor()->file();
  std::vector<std::vector<Rule>> rules(static_cast<size_t>(file->message_type_count()));
  for (int m = 0; m < file->message_type_count(); ++m) {
    const google::protobuf::Descriptor* type = file->message_type(m);
    for (int f = 0; f < type->field_count(); ++f) {
      const FieldDescriptor* field = type->field(f);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) continue;
      const std::string name = type->name() + "." + field->name();
      const auto row = std::ranges::find(ranges, std::string_view(name), &WireRange::field);
      const bool one_message =
          field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated();
      FATHOM_CHECK(one_message || row != ranges.end(), "{} has no row in wire_ranges.cc", name);
      rules[static_cast<size_t>(m)].push_back({field, one_message ? WireRange{} : *row});
    }
  }
  return rules;
}

}  // namespace

absl::Status CheckRanges(const ProtoMessage& message) {
  static const auto& kRules = *new std::vector<std::vector<Rule>>(MakeRules());
  const google::protobuf::Descriptor* type = message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  for (const Rule& rule : kRules[static_cast<size_t>(type->index())]) {
    FATHOM_RETURN_IF_ERROR(rule.field->is_repeated() ? CheckList(rule, message, reflection)
                                                     : CheckOne(rule, message, reflection));
  }
  return absl::OkStatus();
}

}  // namespace fathom
