#include "router/frontend/grpc/parse_message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/wire_format_lite.h>

#include <vector>

#include "common/reason.h"
#include "common/utf8.h"

namespace fathom::router {
namespace {

namespace pb = google::protobuf;
using pb::internal::WireFormatLite;

// The path of the first string field in `bytes` that is not UTF-8; empty: none was found.
std::string FindBadText(const std::string& bytes, const pb::Descriptor& type, int depth) {
  pb::io::ArrayInputStream array(bytes.data(), static_cast<int>(bytes.size()));
  pb::io::CodedInputStream in(&array);
  std::vector<int> seen(type.field_count());
  while (const uint32_t tag = in.ReadTag()) {
    const pb::FieldDescriptor* field =
        type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool sized =
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (field == nullptr || !sized) {
      if (!WireFormatLite::SkipField(&in, tag)) return {};
      continue;
    }
    uint32_t size = 0;
    std::string value;
    if (!in.ReadVarint32(&size) || !in.ReadString(&value, static_cast<int>(size))) return {};
    std::string name = field->is_repeated()
                           ? fmt::format("{}[{}]", field->name(), seen[field->index()]++)
                           : field->name();
    if (field->type() == pb::FieldDescriptor::TYPE_STRING &&
        FirstInvalidUtf8(value) != std::string::npos)
      return name;
    if (field->type() == pb::FieldDescriptor::TYPE_MESSAGE && depth < 16) {
      const std::string inner = FindBadText(value, *field->message_type(), depth + 1);
      if (!inner.empty()) return fmt::format("{}.{}", name, inner);
    }
  }
  return {};
}

// The path of the first field that this version does not know; empty: none.
std::string FindUnknown(const pb::Message& message) {
  const pb::Reflection& reflection = *message.GetReflection();
  const pb::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) return fmt::format("#{}", unknown.field(0).number());
  std::vector<const pb::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const pb::FieldDescriptor* field : fields) {
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string inner =
          FindUnknown(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                           : reflection.GetMessage(message, field));
      if (!inner.empty()) return fmt::format("{}.{}", field->name(), inner);
    }
  }
  return {};
}

}  // namespace

absl::Status ParseMessage(const std::string& bytes, pb::Message* message) {
  const std::string& type = message->GetDescriptor()->full_name();
  if (!message->ParseFromString(bytes)) {
    const std::string field = FindBadText(bytes, *message->GetDescriptor(), 0);
    if (!field.empty()) {
      return WithReason(Invalid("{} has bytes that are not UTF-8; encode the text as UTF-8", field),
                        Reason::kInvalidUtf8, field);
    }
    return WithReason(Invalid("{} bytes are not a {}; make the message with proto/inference.proto",
                              bytes.size(), type),
                      Reason::kMalformedMessage);
  }
  const std::string unknown = FindUnknown(*message);
  if (unknown.empty()) return absl::OkStatus();
  return WithReason(Invalid("{} has the field {}, which this version does not know; leave it out "
                            "or upgrade the server",
                            type, unknown),
                    Reason::kUnknownField, unknown);
}

}  // namespace fathom::router
