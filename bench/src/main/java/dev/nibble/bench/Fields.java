// SPDX-License-Identifier: Apache-2.0
package dev.nibble.bench;

import dev.nibble.ModelFormatException;
import dev.nibble.io.Json;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * An object of a JSON file whose fields must be there and of their type.
 *
 * @param where the file and the place in it, for messages
 */
record Fields(String where, Map<String, Object> map) {

  /** The file's top-level object. */
  static Fields parse(byte[] json, String file) {
    return new Fields(file, Json.parseObject(json, file));
  }

  /** One of a list's elements, which must be an object. */
  static Fields of(String where, Object value) {
    if (!(value instanceof Map<?, ?>)) {
      throw new ModelFormatException(
          where + ": " + Json.typeName(value) + " given, expected an object");
    }
    @SuppressWarnings("unchecked") // Json makes no other maps
    var map = (Map<String, Object>) value;
    return new Fields(where, map);
  }

  private Object required(String name) {
    if (!map.containsKey(name)) {
      throw new ModelFormatException(where + ": has no field \"" + name + "\"");
    }
    return map.get(name);
  }

  private ModelFormatException wrong(String name, String expected) {
    return new ModelFormatException(where + "." + name + ": " + Json.show(map.get(name))
        + " given, expected " + expected);
  }

  String text(String name) {
    if (required(name) instanceof String text) {
      return text;
    }
    throw wrong(name, "a string");
  }

  double number(String name) {
    if (required(name) instanceof Number number) {
      return number.doubleValue();
    }
    throw wrong(name, "a number");
  }

  /** A number above zero: a rate or a time that was measured. */
  double positive(String name) {
    double value = number(name);
    if (value > 0) {
      return value;
    }
    throw wrong(name, "a number above 0");
  }

  /** A positive number, or 0 for null. */
  double positiveOrNull(String name) {
    return required(name) == null ? 0 : positive(name);
  }

  long integer(String name) {
    if (required(name) instanceof Long number) {
      return number;
    }
    throw wrong(name, "an integer");
  }

  boolean flag(String name) {
    if (required(name) instanceof Boolean flag) {
      return flag;
    }
    throw wrong(name, "true or false");
  }

  List<Object> list(String name) {
    if (required(name) instanceof List<?> list) {
      return new ArrayList<>(list);
    }
    throw wrong(name, "an array");
  }

  List<String> texts(String name) {
    var texts = new ArrayList<String>();
    for (var item : list(name)) {
      if (!(item instanceof String text)) {
        throw wrong(name, "an array of strings");
      }
      texts.add(text);
    }
    return texts;
  }

  /** The objects of an array. */
  List<Fields> objects(String name) {
    var objects = new ArrayList<Fields>();
    for (var item : list(name)) {
      objects.add(of(where + "." + name + "[" + objects.size() + "]", item));
    }
    return objects;
  }
}
