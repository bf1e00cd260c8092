// tests/cluster/message_walk.h: visits every field of a message by reflection and sets it to each
// of its extremes, one after the other. Thread: any.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace fathom {

using google::protobuf::FieldDescriptor;
using ProtoMessage = google::protobuf::Message;

constexpr int kManyNumbers = 70'000;
constexpr int kManyMessages = 3'000;

// Gives every field of the message and of the messages in it a small value. Lists get one item; of
// a oneof the last alternative is set.
inline void FillMessage(ProtoMessage* message, int depth = 0) {
  const auto* type = message->GetDescriptor();
  const auto& reflection = *message->GetReflection();
  for (int f = 0; f < type->field_count(); ++f) {
    const FieldDescriptor* field = type->field(f);
    const bool list = field->is_repeated();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        list ? reflection.AddInt32(message, field, 2) : reflection.SetInt32(message, field, 2);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, 1);
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection.SetUInt32(message, field, 1);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        list ? reflection.AddUInt64(message, field, 1) : reflection.SetUInt64(message, field, 1);
        break;
      case FieldDescriptor::CPPTYPE_FLOAT:
        list ? reflection.AddFloat(message, field, 1) : reflection.SetFloat(message, field, 1);
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(message, field, true);
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        reflection.SetEnumValue(message, field, 1);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        list ? reflection.AddString(message, field, "x")
             : reflection.SetString(message, field, "x");
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth > 8) break;
        FillMessage(list ? reflection.AddMessage(message, field)
                         : reflection.MutableMessage(message, field),
                    depth + 1);
        break;
      default:
        break;
    }
  }
}

// Calls `visit`, which reads the whole message that contains `node`, for each extreme of each field
// of `node` and of the messages in it. Afterwards the message is unchanged.
class ExtremesWalk {
 public:
  explicit ExtremesWalk(std::function<void(const std::string& what)> visit)
      : visit_(std::move(visit)) {}

  void Walk(ProtoMessage* node, const std::string& path) {
    const auto* type = node->GetDescriptor();
    for (int f = 0; f < type->field_count(); ++f) {
      const FieldDescriptor* field = type->field(f);
      const std::string name = path + "." + field->name();
      Numbers(node, field, name);
      Others(node, field, name);
      Lists(node, field, name);
    }
  }

 private:
  template <class Mutate>
  void With(ProtoMessage* node, const std::string& what, Mutate mutate) {
    const std::unique_ptr<ProtoMessage> backup(node->New());
    backup->CopyFrom(*node);
    mutate();
    visit_(what);
    node->CopyFrom(*backup);
  }

  template <class T, class Set, class SetItem>
  void Each(ProtoMessage* node, const FieldDescriptor* field, const std::string& name,
            const std::vector<T>& values, Set set, SetItem set_item) {
    const auto& reflection = *node->GetReflection();
    for (const T value : values) {
      With(node, name + "=" + std::to_string(value), [&] {
        if (!field->is_repeated()) {
          (reflection.*set)(node, field, value);
        } else if (reflection.FieldSize(*node, field) > 0) {
          (reflection.*set_item)(node, field, 0, value);
        }
      });
    }
  }

  void Numbers(ProtoMessage* node, const FieldDescriptor* field, const std::string& name) {
    using google::protobuf::Reflection;
    constexpr float kInf = std::numeric_limits<float>::infinity();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return Each<int32_t>(node, field, name,
                             {INT32_MIN, -2, -1, 0, 1, 127, 1 << 12, 1 << 20, 1 << 24, INT32_MAX},
                             &Reflection::SetInt32, &Reflection::SetRepeatedInt32);
      case FieldDescriptor::CPPTYPE_INT64:
        return Each<int64_t>(node, field, name,
                             {INT64_MIN, -1, 0, 1, int64_t{1} << 40, int64_t{1} << 62, INT64_MAX},
                             &Reflection::SetInt64, &Reflection::SetRepeatedInt64);
      case FieldDescriptor::CPPTYPE_UINT32:
        return Each<uint32_t>(node, field, name, {0, 1, 65535, INT32_MAX, UINT32_MAX},
                              &Reflection::SetUInt32, &Reflection::SetRepeatedUInt32);
      case FieldDescriptor::CPPTYPE_UINT64:
        return Each<uint64_t>(node, field, name,
                              {0, 1, uint64_t{1} << 40, (uint64_t{1} << 62) - 1, uint64_t{1} << 62,
                               uint64_t{1} << 63, UINT64_MAX},
                              &Reflection::SetUInt64, &Reflection::SetRepeatedUInt64);
      case FieldDescriptor::CPPTYPE_FLOAT:
        return Each<float>(
            node, field, name,
            {-kInf, kInf, std::numeric_limits<float>::quiet_NaN(),
             std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest(),
             std::numeric_limits<float>::denorm_min(), 1e-38f, 0.0f, -0.0f, -1.0f, 2.5f},
            &Reflection::SetFloat, &Reflection::SetRepeatedFloat);
      case FieldDescriptor::CPPTYPE_ENUM:
        return Each<int>(node, field, name, {INT32_MIN, -1, 0, 1, 2, 3, 6, 99, INT32_MAX},
                         &Reflection::SetEnumValue, &Reflection::SetRepeatedEnumValue);
      default:
        return;
    }
  }

  void Others(ProtoMessage* node, const FieldDescriptor* field, const std::string& name) {
    const auto& reflection = *node->GetReflection();
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      With(node, name + " flipped",
           [&] { reflection.SetBool(node, field, !reflection.GetBool(*node, field)); });
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && !field->is_repeated()) {
      for (const size_t size : {size_t{0}, size_t{300}, size_t{2} << 20}) {
        With(node, name + " of " + std::to_string(size) + " bytes",
             [&] { reflection.SetString(node, field, std::string(size, 'x')); });
      }
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) return;
    if (reflection.HasField(*node, field)) {
      Walk(reflection.MutableMessage(node, field), name);
      With(node, name + " cleared", [&] { reflection.ClearField(node, field); });
    } else {
      With(node, name + " set", [&] { FillMessage(reflection.MutableMessage(node, field)); });
    }
  }

  void Lists(ProtoMessage* node, const FieldDescriptor* field, const std::string& name) {
    if (!field->is_repeated()) return;
    const auto& reflection = *node->GetReflection();
    With(node, name + " empty", [&] { reflection.ClearField(node, field); });
    const bool messages = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    With(node, name + " with many", [&] {
      for (int i = 0; i < (messages ? kManyMessages : kManyNumbers); ++i) {
        if (messages) FillMessage(reflection.AddMessage(node, field), 6);
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
          reflection.AddInt32(node, field, i % 999);
        }
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
          reflection.AddUInt64(node, field, static_cast<uint64_t>(i));
        }
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
          reflection.AddFloat(node, field, 0.5f);
        }
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
          reflection.AddString(node, field, "x");
        }
      }
    });
    if (messages && reflection.FieldSize(*node, field) > 0) {
      Walk(reflection.MutableRepeatedMessage(node, field, 0), name + "[0]");
    }
  }

  const std::function<void(const std::string&)> visit_;
};

}  // namespace fathom
