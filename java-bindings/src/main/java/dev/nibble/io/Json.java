// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import com.fasterxml.jackson.core.JsonEncoding;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.core.util.Separators;
import com.fasterxml.jackson.core.util.Separators.Spacing;
import dev.nibble.InvalidArgumentException;
import dev.nibble.ModelFormatException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON (RFC 8259) to and from plain Java objects: {@link Map} with its keys in order,
 * {@link List}, {@link String}, {@link Long}, {@link BigInteger} (integers beyond a long),
 * {@link Double}, {@link Boolean} and null.
 *
 * <p>Input is hostile until proved otherwise. It must be UTF-8 of at most {@value #MAX_BYTES}
 * bytes, {@value #MAX_DEPTH} levels and {@value #MAX_VALUES} values, keys must not repeat, and
 * numbers have at most {@value #MAX_DIGITS} characters and are finite. The objects made take at
 * most {@value #MAX_EXPANSION} times the input's bytes. All methods are safe for use from any
 * thread.
 */
public final class Json {

  /** Longest input: 16 MiB, some ten times the index of the largest public checkpoints. */
  public static final int MAX_BYTES = 16 << 20;

  /** Deepest nesting of objects and arrays. */
  public static final int MAX_DEPTH = 64;

  /** Most values (objects, arrays, strings, numbers, ...) in one document. */
  public static final int MAX_VALUES = 2_000_000;

  /** Most characters of one number. */
  public static final int MAX_DIGITS = 64;

  /** Heap bytes a parse may take for each byte of input, beyond a fixed 1 MiB. */
  public static final int MAX_EXPANSION = 64;

  private static final JsonFactory FACTORY = JsonFactory.builder()
      .streamReadConstraints(StreamReadConstraints.builder()
          .maxNestingDepth(MAX_DEPTH)
          .maxNumberLength(MAX_DIGITS)
          .maxStringLength(MAX_BYTES)
          .maxNameLength(MAX_BYTES)
          .build())
      .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
      .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
      .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
      .build();

  private Json() {}

  /**
   * Parses a document whose top level is an object.
   *
   * @param bytes the document
   * @param file where it comes from, for messages
   * @throws ModelFormatException naming the file, the line and the column
   */
  public static Map<String, Object> parseObject(byte[] bytes, String file) {
    var value = parse(bytes, file);
    if (value instanceof Map<?, ?>) {
      @SuppressWarnings("unchecked") // parse makes no other maps
      var map = (Map<String, Object>) value;
      return map;
    }
    throw Problem.in(file, "the top level is " + typeName(value) + ", expected an object");
  }

  /**
   * Parses a document.
   *
   * @param bytes the document
   * @param file where it comes from, for messages
   * @throws ModelFormatException naming the file, the line and the column
   */
  public static Object parse(byte[] bytes, String file) {
    if (bytes.length > MAX_BYTES) {
      throw Problem.in(file, bytes.length + " bytes of JSON, expected at most " + MAX_BYTES);
    }
    var text = decode(bytes, file);
    try (var parser = FACTORY.createParser(text)) {
      if (parser.nextToken() == null) {
        throw Problem.in(file, "is empty, expected JSON");
      }
      var value = new Reader(parser, file).value();
      if (parser.nextToken() != null) {
        throw Problem.in(file, position(parser) + "more text after the end of the JSON value");
      }
      return value;
    } catch (JsonProcessingException e) {
      var at = e.getLocation();
      var where = at == null ? ""
          : "line " + at.getLineNr() + ", column " + at.getColumnNr() + ": ";
      throw new ModelFormatException(
          file + ": " + where + "not JSON: " + Problem.printable(e.getOriginalMessage()), e);
    } catch (IOException e) {
      throw Problem.reading(file, e);
    }
  }

  /**
   * Writes a document, indented, with a final line feed.
   *
   * @param value an object of the kinds named above; numbers of any boxed type
   * @throws InvalidArgumentException for any other kind of object, or a number that is not finite
   */
  public static byte[] write(Object value) {
    return write(value, true);
  }

  static byte[] write(Object value, boolean indented) {
    var bytes = new ByteArrayOutputStream();
    try (var generator = FACTORY.createGenerator(bytes, JsonEncoding.UTF8)) {
      if (indented) {
        var indenter = new DefaultIndenter("  ", "\n");
        var printer = new DefaultPrettyPrinter(
            Separators.createDefaultInstance().withObjectFieldValueSpacing(Spacing.AFTER));
        printer.indentObjectsWith(indenter);
        generator.setPrettyPrinter(printer);
      }
      writeValue(generator, value);
      if (indented) {
        generator.writeRaw('\n');
      }
    } catch (IOException e) {
      throw new InvalidArgumentException("cannot be written as JSON: " + e.getMessage());
    }
    return bytes.toByteArray();
  }

  /** What a value is, in words for messages: {@code a string}, {@code an object}, ... */
  public static String typeName(Object value) {
    return switch (value) {
      case null -> "null";
      case Map<?, ?> map -> "an object";
      case List<?> list -> "an array";
      case String text -> "a string";
      case Boolean flag -> "a boolean";
      case Long number -> "an integer";
      case BigInteger number -> "an integer";
      default -> "a number";
    };
  }

  /** A value as JSON would write it, shortened and without control characters, for messages. */
  public static String show(Object value) {
    return Problem.show(value);
  }

  /** The value at which the parser stands, as {@link #parse} gives it; leaves it at its end. */
  static Object readValue(JsonParser parser, String file) throws IOException {
    return new Reader(parser, file).value();
  }

  private static String decode(byte[] bytes, String file) {
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
    } catch (CharacterCodingException e) {
      throw Problem.in(file, "not UTF-8 text, expected JSON in UTF-8");
    }
  }

  private static String position(JsonParser parser) {
    var at = parser.currentTokenLocation();
    return "line " + at.getLineNr() + ", column " + at.getColumnNr() + ": ";
  }

  /** Recursive descent, at most {@link #MAX_DEPTH} deep, as the parser itself sees to. */
  private static final class Reader {
    private final JsonParser parser;
    private final String file;
    private int values;

    Reader(JsonParser parser, String file) {
      this.parser = parser;
      this.file = file;
    }

    Object value() throws IOException {
      if (++values > MAX_VALUES) {
        throw Problem.in(file, "more than " + MAX_VALUES + " JSON values");
      }
      return switch (parser.currentToken()) {
        case START_OBJECT -> object();
        case START_ARRAY -> array();
        case VALUE_STRING -> parser.getText();
        case VALUE_NUMBER_INT -> integer();
        case VALUE_NUMBER_FLOAT -> fraction();
        case VALUE_TRUE -> Boolean.TRUE;
        case VALUE_FALSE -> Boolean.FALSE;
        case VALUE_NULL -> null;
        default -> throw Problem.in(file, position(parser) + "not JSON");
      };
    }

    private Map<String, Object> object() throws IOException {
      var map = new LinkedHashMap<String, Object>();
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        var key = parser.currentName();
        parser.nextToken();
        map.put(key, value());
      }
      return map;
    }

    private List<Object> array() throws IOException {
      var list = new ArrayList<Object>();
      while (parser.nextToken() != JsonToken.END_ARRAY) {
        list.add(value());
      }
      return list;
    }

    private Object integer() throws IOException {
      var type = parser.getNumberType();
      return type == JsonParser.NumberType.BIG_INTEGER
          ? parser.getBigIntegerValue() : (Object) parser.getLongValue();
    }

    private Double fraction() throws IOException {
      double value = parser.getDoubleValue();
      if (Double.isInfinite(value)) {
        throw Problem.in(file, position(parser) + "number " + Problem.printable(parser.getText())
            + " is too large");
      }
      return value;
    }
  }

  private static void writeValue(JsonGenerator generator, Object value) throws IOException {
    switch (value) {
      case null -> generator.writeNull();
      case Map<?, ?> map -> {
        generator.writeStartObject();
        for (var entry : map.entrySet()) {
          generator.writeFieldName((String) entry.getKey());
          writeValue(generator, entry.getValue());
        }
        generator.writeEndObject();
      }
      case Iterable<?> list -> {
        generator.writeStartArray();
        for (var element : list) {
          writeValue(generator, element);
        }
        generator.writeEndArray();
      }
      case String text -> generator.writeString(text);
      case Boolean flag -> generator.writeBoolean(flag);
      case Integer number -> generator.writeNumber(number);
      case Long number -> generator.writeNumber(number);
      case BigInteger number -> generator.writeNumber(number);
      case Double number when Double.isFinite(number) -> generator.writeNumber(number);
      case Float number when Float.isFinite(number) -> generator.writeNumber(number);
      default -> throw new InvalidArgumentException(
          "cannot be written as JSON: " + value.getClass().getSimpleName() + " " + value);
    }
  }
}
