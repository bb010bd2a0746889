//! MQTT packets and topic grammar: bytes in, values out.
